package supervisor

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	reg         prometheus.Registerer
	position    prometheus.Gauge
	execs       prometheus.Gauge
	undecodable prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		reg:      reg,
		position: prometheus.NewGauge(prometheus.GaugeOpts{Name: "kanade_scheduler_fold_sequence", Help: "Log sequence that the scheduler's fold has reached."}),
		execs:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "kanade_scheduler_execs", Help: "Execs that have not expired."}),
		undecodable: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kanade_scheduler_undecodable_total", Help: "Facts and heartbeats that could not be read.",
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
	return []prometheus.Collector{m.position, m.execs, m.undecodable}
}

func (m *metrics) close() {
	if m.reg == nil {
		return
	}
	for _, c := range m.collectors() {
		m.reg.Unregister(c)
	}
}
