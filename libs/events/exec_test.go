package events

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// A part is what its numbers have in common with the wave, whatever they are.
func TestPart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		number := rapid.OneOf(rapid.IntRange(-3, 8), rapid.SampledFrom([]int{math.MinInt, math.MaxInt}))
		size, from, to := rapid.IntRange(0, 5).Draw(t, "size"), number.Draw(t, "from"), number.Draw(t, "to")
		first, end := Part(size, from, to)
		var got, want []int
		for place := first; place < end; place++ {
			got = append(got, place)
		}
		for place := range size {
			if from == 0 && to == 0 || place >= from && place < to {
				want = append(want, place)
			}
		}
		require.Equal(t, want, got)
		require.True(t, first < end || first == 0 && end == 0)
	})
}

func TestDelay(t *testing.T) {
	require.Zero(t, PlannedWave{}.Delay())
	require.Equal(t, 90*time.Second, PlannedWave{DelaySecs: 90}.Delay())
	for _, secs := range []uint64{math.MaxInt64 / 1_000_000_000, math.MaxInt64/1_000_000_000 + 1, math.MaxInt64, math.MaxUint64} {
		require.Equal(t, math.MaxInt64/time.Second*time.Second, PlannedWave{DelaySecs: secs}.Delay(), secs)
	}
}
