package housekeeping

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kanade/libs/process"
)

type metrics struct {
	deleted *prometheus.CounterVec
	reduced prometheus.Counter
	seconds prometheus.Gauge
	lastRun prometheus.Gauge
	close   func()
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		deleted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kanade_scheduler_housekeeping_deleted_total", Help: "Facts that housekeeping has deleted from the log, by kind.",
		}, []string{"kind"}),
		reduced: prometheus.NewCounter(prometheus.CounterOpts{Name: "kanade_scheduler_housekeeping_reduced_total", Help: "Execs that were reduced to their totals."}),
		seconds: prometheus.NewGauge(prometheus.GaugeOpts{Name: "kanade_scheduler_housekeeping_seconds", Help: "How long the last run of housekeeping took."}),
		lastRun: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kanade_scheduler_housekeeping_last_run_timestamp_seconds", Help: "When this process last finished housekeeping, 0 if it has not.",
		}),
	}
	var err error
	m.close, err = process.Register(reg, m.deleted, m.reduced, m.seconds, m.lastRun)
	return m, err
}

// timer begins to measure a run; what it gives ends that.
func (m *metrics) timer() (took func() time.Duration) {
	return prometheus.NewTimer(prometheus.ObserverFunc(m.seconds.Set)).ObserveDuration
}
