package process_test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"kanade/libs/process"
)

// Who can't show all of its metrics shows none, and takes nobody else's away.
func TestRegister(t *testing.T) {
	gauge := func(name string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: name})
	}
	shown := func(reg *prometheus.Registry) (names []string) {
		found, err := reg.Gather()
		require.NoError(t, err)
		for _, f := range found {
			names = append(names, f.GetName())
		}
		return names
	}
	reg := prometheus.NewRegistry()
	first, err := process.Register(reg, gauge("a"), gauge("b"))
	require.NoError(t, err)
	_, err = process.Register(reg, gauge("c"), gauge("b"))
	require.ErrorContains(t, err, "register metrics")
	require.Equal(t, []string{"a", "b"}, shown(reg))
	first()
	require.Empty(t, shown(reg))
	none, err := process.Register(nil, gauge("a"))
	require.NoError(t, err)
	none()
}
