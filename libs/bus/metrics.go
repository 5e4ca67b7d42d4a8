package bus

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kanade/libs/events"
)

// Outcomes of a handler's call.
const (
	outcomeDone    = "done"
	outcomeRetried = "retried"
	outcomeParked  = "parked"
)

// metrics counts for one connection. Connections that share a registry share counters and histograms; what a connection
// says of itself bears its name.
type metrics struct {
	reg      prometheus.Registerer // nil: nobody reads
	handlers *prometheus.HistogramVec
	parked   *prometheus.CounterVec
	appends  *prometheus.CounterVec
	own      []prometheus.Collector
}

func newMetrics(reg prometheus.Registerer, b *Bus) (*metrics, error) {
	m := &metrics{
		reg: reg,
		handlers: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kanade_handler_duration_seconds", Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9),
			Help: "Calls of message handlers, by handler and outcome: done, retried (an error; the message comes again), parked.",
		}, []string{"handler", "outcome"}),
		parked: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kanade_parked_messages_total", Help: "Messages put into DEAD, by handler.",
		}, []string{"handler"}),
		appends: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kanade_appends_total",
			Help: "Appends to the log, by outcome: stored, conflict, full, unavailable, failed.",
		}, []string{"outcome"}),
	}
	if reg == nil {
		return m, nil
	}
	var err error
	if m.handlers, err = register(reg, m.handlers); err != nil {
		return nil, err
	}
	if m.parked, err = register(reg, m.parked); err != nil {
		return nil, err
	}
	if m.appends, err = register(reg, m.appends); err != nil {
		return nil, err
	}
	labels := prometheus.Labels{"connection": b.name}
	for _, c := range []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "kanade_broker_connected", ConstLabels: labels, Help: "1 while the connection to the broker is up.",
		}, func() float64 {
			if b.Connected() {
				return 1
			}
			return 0
		}),
		&streamCollector{bus: b, stream: events.StreamTimers, desc: prometheus.NewDesc("kanade_timers_outstanding",
			"Timers that wait or are due and not handled yet.", nil, labels)},
		&streamCollector{bus: b, stream: events.StreamDead, except: retriedPrefix + "*", desc: prometheus.NewDesc("kanade_dead_letters",
			"Messages that lie in DEAD, retried or not.", nil, labels)},
	} {
		if err := reg.Register(c); err != nil {
			m.close()
			return nil, err
		}
		m.own = append(m.own, c)
	}
	return m, nil
}

// register gives the collector that another connection has registered already, if there is one.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) (C, error) {
	err := reg.Register(c)
	var there prometheus.AlreadyRegisteredError
	if errors.As(err, &there) {
		if known, ok := there.ExistingCollector.(C); ok {
			return known, nil
		}
	}
	return c, err
}

func (m *metrics) close() {
	for _, c := range m.own {
		m.reg.Unregister(c)
	}
}

func (m *metrics) handled(handler, outcome string, d time.Duration) {
	m.handlers.WithLabelValues(handler, outcome).Observe(d.Seconds())
	if outcome == outcomeParked {
		m.parked.WithLabelValues(handler).Inc()
	}
}

func (m *metrics) appended(err error) {
	outcome := "failed"
	switch {
	case err == nil:
		outcome = "stored"
	case errors.Is(err, ErrConflict):
		outcome = "conflict"
	case errors.Is(err, ErrLogFull):
		outcome = "full"
	case errors.Is(err, ErrUnavailable):
		outcome = "unavailable"
	}
	m.appends.WithLabelValues(outcome).Inc()
}

// streamCollector counts the messages of a stream when somebody scrapes, but for those on some subjects, and says nothing
// if the broker does not answer within a second.
type streamCollector struct {
	bus    *Bus
	stream string
	// except is a subject with wildcards; empty: everything counts.
	except string
	desc   *prometheus.Desc
}

func (c *streamCollector) Describe(out chan<- *prometheus.Desc) { out <- c.desc }

func (c *streamCollector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	request := struct {
		Filter string `json:"subjects_filter,omitempty"`
	}{c.except}
	var info struct {
		State struct {
			Messages uint64            `json:"messages"`
			Subjects map[string]uint64 `json:"subjects"`
		} `json:"state"`
	}
	if c.bus.api(ctx, "STREAM.INFO."+c.stream, request, &info) != nil {
		return
	}
	n := info.State.Messages
	for _, excepted := range info.State.Subjects {
		n -= min(n, excepted)
	}
	out <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(n))
}
