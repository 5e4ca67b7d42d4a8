// Package metrics counts what the agent does.
package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"kanade/libs/process"
)

// Metrics are the agent's collectors. Safe for concurrent use.
type Metrics struct {
	// Heard counts commands by way: live, catch_up, duplicate, unreadable.
	Heard *prometheus.CounterVec
	// Runs counts ended runs by state.
	Runs *prometheus.CounterVec
	// Skips counts commands that were not run, by reason.
	Skips *prometheus.CounterVec
	// OutputsCut counts outputs that went out without their object, by reason: store_full, spool_lost. A try that
	// the log refuses counts as well.
	OutputsCut *prometheus.CounterVec
	// Running is how many scripts run now.
	Running prometheus.Gauge
	// CatchUpFailures counts catch-ups that failed and were tried again.
	CatchUpFailures prometheus.Counter

	unregister func()
}

// New makes the collectors and registers them; waiting tells how many messages the outbox holds. Close takes them out
// again.
func New(reg prometheus.Registerer, waiting func() int) (*Metrics, error) {
	m := &Metrics{
		Heard: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kanade_agent_commands_total", Help: "Commands heard, by way: live, catch_up, duplicate, unreadable.",
		}, []string{"way"}),
		Runs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kanade_agent_runs_total", Help: "Runs that have ended, by state.",
		}, []string{"state"}),
		Skips: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kanade_agent_skips_total", Help: "Commands that were not run, by reason.",
		}, []string{"reason"}),
		OutputsCut: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kanade_agent_outputs_cut_total", Help: "Outputs of which only head and tail are kept, by reason: store_full, spool_lost.",
		}, []string{"reason"}),
		Running: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kanade_agent_running", Help: "Scripts that run now.",
		}),
		CatchUpFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kanade_agent_catch_up_failures_total", Help: "Catch-ups that failed; they are tried again.",
		}),
	}
	outbox := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "kanade_agent_outbox_messages", Help: "Facts that the log has not acknowledged yet.",
	}, func() float64 { return float64(waiting()) })
	var err error
	m.unregister, err = process.Register(reg, m.Heard, m.Runs, m.Skips, m.OutputsCut, m.Running, m.CatchUpFailures, outbox)
	return m, err
}

// Close unregisters the collectors, so that the agent can be started again in the same process.
func (m *Metrics) Close() { m.unregister() }
