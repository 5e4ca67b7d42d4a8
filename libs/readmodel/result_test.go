package readmodel

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// An expression that can only match one text is looked up; every other one is searched for.
func TestExactExpressions(t *testing.T) {
	for expression, want := range map[string]string{
		"^pc-01$": "pc-01", `^a\.b$`: "a.b", `\Apc\z`: "pc",
		"pc-01": "", "^pc-01": "", "pc-01$": "", "^pc.01$": "", "(?i)^pc-01$": "", "(?m)^pc-01$": "", "^a|b$": "", "^$": "", "": "",
	} {
		text, ok := exact(regexp.MustCompile(expression))
		require.Equal(t, want, text, expression)
		require.Equal(t, want != "", ok, expression)
	}
	_, ok := exact(nil)
	require.False(t, ok)
}
