package events

import (
	"reflect"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What a flag says is its default is what code gets that gives none.
func TestLimitsOfFlagsAreTheDefaults(t *testing.T) {
	v := reflect.ValueOf(DefaultLimits())
	for i := range v.NumField() {
		text := v.Type().Field(i).Tag.Get("default")
		want, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			d, err := time.ParseDuration(text)
			require.NoError(t, err)
			want = int64(d)
		}
		require.Equal(t, want, v.Field(i).Int(), v.Type().Field(i).Name)
	}
	require.Equal(t, DefaultLimits(), Limits{}.OrDefault())
	require.Equal(t, Limits{Fleet: 3}, Limits{Fleet: 3}.OrDefault())
}

func TestStreamsAreNamedOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Streams(DefaultLimits()) {
		require.False(t, seen[s.Name], s.Name)
		require.NotEmpty(t, s.Why, s.Name)
		seen[s.Name] = true
	}
	for _, b := range Buckets(DefaultLimits()) {
		require.False(t, seen[b.Name], b.Name)
		require.NotEmpty(t, b.Why, b.Name)
		seen[b.Name] = true
	}
}
