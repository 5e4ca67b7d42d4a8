package cli

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestDifference(t *testing.T) {
	require.Empty(t, difference("a\nb\n", "a\nb\n"))
	require.Equal(t, []string{"+ a"}, difference("", "a\n"))
	require.Equal(t, []string{"  2", "  3", "- 4", "+ four", "  5", "  6", "  …", "  9", "  10", "+ 11"},
		difference("1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n", "1\n2\n3\nfour\n5\n6\n7\n8\n9\n10\n11\n"))
	long := strings.Repeat("x\n", 3000)
	require.Len(t, difference(long, strings.Repeat("y\n", 3000)), 6000, "too much to be compared is shown whole")
}

// What goes and what comes, with what stays, are the two texts.
func TestDifferenceIsWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 12)
		a, b := text.Draw(t, "before"), text.Draw(t, "after")
		var before, after []string
		for _, line := range between(a, b) {
			if line[0] != '+' {
				before = append(before, line[2:])
			}
			if line[0] != '-' {
				after = append(after, line[2:])
			}
		}
		require.Equal(t, append([]string{}, a...), append([]string{}, before...))
		require.Equal(t, append([]string{}, b...), append([]string{}, after...))
	})
}
