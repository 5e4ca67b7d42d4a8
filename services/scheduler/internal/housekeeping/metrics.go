package housekeeping

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	reg     prometheus.Registerer
	deleted *prometheus.CounterVec
	reduced prometheus.Counter
	seconds prometheus.Gauge
	lastRun prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		reg: reg,
		deleted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kanade_scheduler_housekeeping_deleted_total", Help: "Facts that housekeeping has deleted from the log, by kind.",
		}, []string{"kind"}),
		reduced: prometheus.NewCounter(prometheus.CounterOpts{Name: "kanade_scheduler_housekeeping_reduced_total", Help: "Execs that were reduced to their totals."}),
		seconds: prometheus.NewGauge(prometheus.GaugeOpts{Name: "kanade_scheduler_housekeeping_seconds", Help: "How long the last run of housekeeping took."}),
		lastRun: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kanade_scheduler_housekeeping_last_run_timestamp_seconds", Help: "When this process last finished housekeeping, 0 if it has not.",
		}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range m.collectors() {
		if err := reg.Register(c); err != nil {
			m.close()
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.deleted, m.reduced, m.seconds, m.lastRun}
}

// timer begins to measure a run; what it gives ends that.
func (m *metrics) timer() (took func() time.Duration) {
	return prometheus.NewTimer(prometheus.ObserverFunc(m.seconds.Set)).ObserveDuration
}

func (m *metrics) close() {
	if m.reg == nil {
		return
	}
	for _, c := range m.collectors() {
		m.reg.Unregister(c)
	}
}
