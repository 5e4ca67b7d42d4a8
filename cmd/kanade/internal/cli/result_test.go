package cli

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/cmd/kanade/internal/client"
)

func TestCutOutput(t *testing.T) {
	r := client.Result{
		ResultID: "r", Stdout: "head\n\n[... 90 bytes left out ...]\ntail\n", StdoutBytes: 100, StdoutTruncated: true,
		Stderr: "a\nb\nc\n", StderrBytes: 6,
	}
	printed := func(lines int) string {
		var b bytes.Buffer
		printStreams(&b, r, lines)
		return b.String()
	}
	require.Contains(t, printed(0), "    tail\n    … 10 of 100 bytes are shown; only its beginning and its end were kept\n")
	require.Contains(t, printed(1), "    head\n    … 5 of 100 bytes are shown; ")
	require.Contains(t, printed(1), "    a\n    … 2 lines more\n")
	r.StdoutObject, r.StdoutBytes = "x", 9<<20
	require.Contains(t, printed(0), "`kanade result output r stdout` prints the 8 MiB that are kept, from its beginning and its end\n")
}
