package projector

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kanade/libs/process"
)

// scrapeTimeout bounds what a scrape waits for the broker.
const scrapeTimeout = 2 * time.Second

// metrics of one Run; all bear the label slot, so that several projectors may share a registry.
type metrics struct {
	registry prometheus.Registerer
	at       *prometheus.GaugeVec
	size     *prometheus.HistogramVec
	duration *prometheus.HistogramVec
	parked   *prometheus.CounterVec
	stalled  *prometheus.GaugeVec
	removed  prometheus.Counter
	// shown takes out of the registry what was put into it.
	shown []func()
}

func newMetrics(registry prometheus.Registerer, slot string) (*metrics, error) {
	stream := []string{"stream"}
	m := &metrics{
		registry: prometheus.WrapRegistererWith(prometheus.Labels{"slot": slot}, registry),
		at: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kanade_projector_applied_sequence", Help: "Last sequence of the stream that is in the read model.",
		}, stream),
		size: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kanade_projector_batch_messages", Help: "Messages in a transaction.", Buckets: prometheus.ExponentialBuckets(1, 4, 8),
		}, stream),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kanade_projector_apply_seconds", Help: "Duration of a transaction.", Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
		}, stream),
		parked: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kanade_projector_poison_total", Help: "Messages that could not be decoded and were parked in DEAD.",
		}, stream),
		stalled: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kanade_projector_stalled", Help: "1 while the disk or the broker refuses and the projector stays where it is, trying again.",
		}, stream),
		removed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kanade_projector_old_files_removed_total", Help: "Files of other schemas that were removed from the slot.",
		}),
	}
	if err := m.show(m.at, m.size, m.duration, m.parked, m.stalled, m.removed); err != nil {
		return nil, fmt.Errorf("metrics of %s: %w", slot, err)
	}
	return m, nil
}

func (m *metrics) show(collectors ...prometheus.Collector) error {
	hide, err := process.Register(m.registry, collectors...)
	if err == nil {
		m.shown = append(m.shown, hide)
	}
	return err
}

// watch makes the gauges of how far a feed is and how old that is, which ask the broker whenever they are read; NaN while
// nobody knows.
func (m *metrics) watch(stream string, feed func() *feed) error {
	age := func(pick func(age, still time.Duration) time.Duration) func(context.Context) (float64, bool) {
		return func(ctx context.Context) (float64, bool) {
			f := feed()
			age, still, ok := f.age(f.now(ctx))
			return pick(age, still).Seconds(), ok
		}
	}
	for _, g := range []struct {
		name, help string
		read       func(context.Context) (float64, bool)
	}{
		{"kanade_projector_lag_messages", "Sequence numbers that the stream is ahead of the read model.", func(ctx context.Context) (float64, bool) {
			_, lag, err := feed().lag(ctx)
			return float64(lag), err == nil
		}},
		{"kanade_projector_age_seconds", "How long ago the last message that is in the read model was stored.", age(
			func(age, _ time.Duration) time.Duration { return age })},
		{"kanade_projector_still_seconds", "How long no message has been put into the read model.", age(
			func(_, still time.Duration) time.Duration { return still })},
	} {
		gauge := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: g.name, Help: g.help, ConstLabels: prometheus.Labels{"stream": stream}}, func() float64 {
			ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
			defer cancel()
			if v, ok := g.read(ctx); ok {
				return v
			}
			return math.NaN()
		})
		if err := m.show(gauge); err != nil {
			return fmt.Errorf("metrics of stream %s: %w", stream, err)
		}
	}
	return nil
}

func (m *metrics) unregister() {
	for _, hide := range m.shown {
		hide()
	}
}

func (m *metrics) applied(stream string, messages, poison int, d time.Duration) {
	if m == nil {
		return
	}
	m.size.WithLabelValues(stream).Observe(float64(messages))
	m.duration.WithLabelValues(stream).Observe(d.Seconds())
	m.parked.WithLabelValues(stream).Add(float64(poison))
}

func (m *metrics) sequence(stream string, n uint64) {
	if m != nil {
		m.at.WithLabelValues(stream).Set(float64(n))
	}
}

func (m *metrics) stalls(stream string, is bool) {
	if m == nil {
		return
	}
	value := 0.0
	if is {
		value = 1
	}
	m.stalled.WithLabelValues(stream).Set(value)
}
