package supervisor

import (
	"github.com/prometheus/client_golang/prometheus"

	"kanade/libs/process"
)

type metrics struct {
	position    prometheus.Gauge
	execs       prometheus.Gauge
	undecodable prometheus.Counter
	close       func()
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		position: prometheus.NewGauge(prometheus.GaugeOpts{Name: "kanade_scheduler_fold_sequence", Help: "Log sequence that the scheduler's fold has reached."}),
		execs:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "kanade_scheduler_execs", Help: "Execs that have not expired."}),
		undecodable: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kanade_scheduler_undecodable_total", Help: "Facts and heartbeats that could not be read.",
		}),
	}
	var err error
	m.close, err = process.Register(reg, m.position, m.execs, m.undecodable)
	return m, err
}
