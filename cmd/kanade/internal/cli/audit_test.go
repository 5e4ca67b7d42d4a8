package cli_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/cmd/kanade/internal/client"
)

func TestAudit(t *testing.T) {
	system(t)
	ok(t, "job", "create", file(t, "a.yaml", script("a", "true")))
	ok(t, "freeze", "set", "--reason", "year end")
	ok(t, "revoke", "a")
	list := eventually(t, "script_revoke", "audit")
	require.Regexp(t, `^LOG +WHEN +WHO +ACTION +TARGET +DETAILS\n\d+ +\S+ \S+ +service-token +script_revoke +a +\{"source":"cli","sub":"service-token"\}\n`, list)
	require.Equal(t, 4, strings.Count(list, "\n"))
	require.Equal(t, list, ok(t, "audit", "list", "--who", "service-token", "--since", "1h"))
	require.Equal(t, 2, strings.Count(ok(t, "audit", "--action", "freeze_set", "--target", "freeze", "--match", "year"), "\n"))
	require.Empty(t, okJSON[[]client.Act](t, "audit", "--until", "1h"))
	require.Empty(t, okJSON[[]client.Act](t, "audit", "--actor", "admin"))
	acts := okJSON[[]client.Act](t, "audit", "--limit", "1")
	require.Len(t, acts, 1)
	require.Equal(t, "script_revoke", acts[0].Action)
	r := kanade(t, "audit", "--until", "noon")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, `--until "noon": expected a time`)
}
