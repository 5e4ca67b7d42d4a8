package cli_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestProjector(t *testing.T) {
	system(t)
	jobs(t, map[string]string{"a": "true"})
	eventually(t, "1.0.0", "job", "list")
	before := ok(t, "projector", "list")
	require.Regexp(t, `(?m)^SLOT +STATE +SEQUENCE +AS OF +FILE\nslot-0 +served, asked +\d+ +20\S+ \S+ +\S+slot-0\S+\.db$`, before)
	require.Regexp(t, `^slot-0 on \S+: every row is as the log says, up to sequence \d+\n$`, ok(t, "projector", "verify", "--reason", "habit"))
	require.Contains(t, ok(t, "projector", "rebuild"), "\n  the new file is served\n")
	require.NotEqual(t, before, ok(t, "projector", "list"))
	require.Contains(t, ok(t, "job", "list"), "1.0.0")
	raw := okJSON[map[string]any](t, "projector", "verify")
	require.Equal(t, "kanade.config.checked.v1", raw["type"])
	r := kanade(t, "projector", "verify", "--replicas", "2", "--timeout", "1s")
	require.Equal(t, 3, r.code)
	require.Contains(t, r.err, "1 of 2 projectors have answered in 1s")
}
