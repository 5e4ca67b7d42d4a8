//go:build unix

package systemtest

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/broker"
	"kanade/libs/bus/bustest"
	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/services/scheduler"
)

// benchTicks is how many schedules BenchmarkTicks has.
const benchTicks = 10_000

// BenchmarkTicks is 10 000 schedules that are due at one instant, each of one endpoint that is not there, on a broker that
// listens on loopback and one scheduler, under the program's GCPercent; nothing else runs. ticks/s is from the instant to the
// last tick in the log, by the log's clock; of-ceiling is that against facts of the same bytes, published to the same stream by somebody who waits
// for nothing but the acknowledgements. p50-late-ms and p99-late-ms are how late a tick is beyond the time that those take
// altogether. heap-KB is the heap in use of the whole process, broker included, for each schedule that waits.
func BenchmarkTicks(b *testing.B) {
	defer debug.SetGCPercent(debug.SetGCPercent(scheduler.GCPercent))
	var rate, raw, p50, p99, heap []float64
	for b.Loop() {
		x := newTicksBench(b)
		before := heapInUse()
		due := x.save(b)
		heap = append(heap, (heapInUse()-before)/benchTicks/1024)
		stored := x.ticks(b, due)
		x.stop()
		ceiling := x.publish(b)
		late := make([]time.Duration, len(stored))
		for i, m := range stored {
			late[i] = m.Time.Sub(due)
		}
		rate = append(rate, benchTicks/slices.Max(late).Seconds())
		raw = append(raw, benchTicks/ceiling.Seconds())
		p50, p99 = append(p50, ms(at(0.5, late)-ceiling)), append(p99, ms(at(0.99, late)-ceiling))
		x.close()
	}
	median := func(all []float64) float64 { slices.Sort(all); return all[len(all)/2] }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(rate), "ticks/s")
	b.ReportMetric(median(raw), "raw/s")
	b.ReportMetric(median(rate)/median(raw), "of-ceiling")
	b.ReportMetric(median(p50), "p50-late-ms")
	b.ReportMetric(median(p99), "p99-late-ms")
	b.ReportMetric(median(heap), "heap-KB")
}

func heapInUse() float64 {
	runtime.GC()
	runtime.GC()
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return float64(s[0].Value.Uint64())
}

// ticksBench is a broker, an operator and a scheduler.
type ticksBench struct {
	bus     *bus.Bus
	metrics *prometheus.Registry
	stop    func()
	close   func()
	facts   []bus.RawMsg
}

func newTicksBench(b *testing.B) *ticksBench {
	br, err := broker.Start(broker.Config{StoreDir: b.TempDir(), Listen: "127.0.0.1:0", Token: bustest.Token, Logger: quiet(b)})
	require.NoError(b, err)
	connect := func(name string) *bus.Bus {
		c, err := bus.Connect(b.Context(), bus.Config{URL: br.URL(), Token: bustest.Token, Name: name, Logger: quiet(b)})
		require.NoError(b, err)
		return c
	}
	operator, own := connect("operator"), connect("scheduler")
	require.NoError(b, operator.Ensure(b.Context(), bustest.Limits()))
	ctx, cancel := context.WithCancel(b.Context())
	ended, ready, registry := make(chan error, 1), make(chan struct{}), prometheus.NewRegistry()
	go func() {
		ended <- scheduler.Run(ctx, scheduler.Config{}, scheduler.Deps{Bus: own, Logger: quiet(b), Metrics: registry, Ready: func() { close(ready) }})
	}()
	<-ready
	return &ticksBench{
		bus: operator, metrics: registry, stop: func() { cancel(); require.NoError(b, <-ended) },
		close: func() { own.Close(); operator.Close(); br.Shutdown() },
	}
}

// save stores job and schedules, waits until the scheduler knows them all, and gives the instant at which all are due.
func (x *ticksBench) save(b *testing.B) time.Time {
	m, err := catalog.ParseManifest([]byte("id: bench\nversion: 1.0.0\nexecute: {shell: sh, timeout: 30s, script: 'true'}\n"), catalog.YAML)
	require.NoError(b, err)
	doc, err := m.Document()
	require.NoError(b, err)
	x.append(b, events.JobSaved{ID: "bench", Version: "1.0.0", DocumentRevision: events.DocumentRevision{Document: doc, Hash: catalog.Hash(doc)}})
	due := time.Now().UTC().Truncate(time.Second).Add(45 * time.Second)
	var all sync.WaitGroup
	for worker := range 32 {
		all.Go(func() {
			for i := worker; i < benchTicks; i += 32 {
				s, err := catalog.ParseSchedule(fmt.Appendf(nil, "id: s-%05d\njob_id: bench\ntz: Europe/Berlin\ntarget: {pcs: [pc-%05d]}\nwhen: {cron: '%s'}\n", i, i,
					due.In(berlin(b)).Format("5 4 15 2 1 *")), catalog.YAML)
				require.NoError(b, err)
				doc, err := s.Document()
				require.NoError(b, err)
				x.append(b, events.ScheduleSaved{ID: s.ID, JobID: "bench", Enabled: true, DocumentRevision: events.DocumentRevision{Document: doc, Hash: catalog.Hash(doc)}})
			}
		})
	}
	all.Wait()
	last, err := x.bus.LastSeq(b.Context(), events.StreamLog)
	require.NoError(b, err)
	for x.folded(b) < float64(last) {
		require.Less(b, time.Now().Unix(), due.Add(-3*time.Second).Unix(), "the scheduler is at %v of %d: too slow for this instant", x.folded(b), last)
		time.Sleep(10 * time.Millisecond)
	}
	return due
}

// folded is how far the scheduler knows the log.
func (x *ticksBench) folded(b *testing.B) float64 {
	families, err := x.metrics.Gather()
	require.NoError(b, err)
	for _, f := range families {
		if f.GetName() == "kanade_scheduler_fold_sequence" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	b.Fatal("the scheduler does not say how far it is")
	return 0
}

func berlin(b *testing.B) *time.Location {
	zone, err := time.LoadLocation("Europe/Berlin")
	require.NoError(b, err)
	return zone
}

func (x *ticksBench) append(b *testing.B, p events.Payload) {
	e, err := events.New(p, events.Meta{ID: uuid.NewString(), Source: "/kanade/test", Time: time.Now(), Actor: "user:operator"})
	require.NoError(b, err)
	_, err = x.bus.Append(b.Context(), e, bus.Any)
	require.NoError(b, err)
}

// ticks waits for all ticks and the end of what they have made, and gives them. It looks at the end of the log only, so as to
// take no time from whom it measures.
func (x *ticksBench) ticks(b *testing.B, due time.Time) []bus.RawMsg {
	time.Sleep(time.Until(due.Add(-time.Second)))
	runtime.GC()
	time.Sleep(time.Until(due.Add(time.Second)))
	for last := uint64(0); ; { // until it is quiet
		time.Sleep(2 * time.Second)
		now, err := x.bus.LastSeq(b.Context(), events.StreamLog)
		require.NoError(b, err)
		if now == last {
			break
		}
		last = now
	}
	dispatched := 0
	ctx, done := context.WithTimeout(b.Context(), 2*time.Minute)
	require.NoError(b, x.bus.Follow(ctx, bus.FollowConfig{Stream: events.StreamLog, From: 1}, func(_ context.Context, batch []bus.RawMsg) error {
		for _, m := range batch {
			e, err := m.Event()
			if err != nil {
				return err
			}
			switch e.Type {
			case events.ScheduleTicked{}.EventType():
				x.facts = append(x.facts, m)
			case events.WaveDispatched{}.EventType():
				if dispatched++; dispatched == benchTicks {
					done()
				}
			}
		}
		return nil
	}))
	require.Equal(b, benchTicks, dispatched)
	require.Len(b, x.facts, benchTicks)
	return x.facts
}

// publish stores facts of the same bytes under other names, and gives how long it took.
func (x *ticksBench) publish(b *testing.B) time.Duration {
	messages := make([]*nats.Msg, len(x.facts))
	for i, m := range x.facts {
		header := nats.Header{}
		for name, value := range m.Header {
			header[name] = value
		}
		header[events.HeaderMsgID] = []string{uuid.NewString()}
		delete(header, nats.ExpectedLastSubjSeqHdr)
		delete(header, "Nats-Expected-Last-Subject-Sequence-Subject")
		messages[i] = &nats.Msg{Subject: fmt.Sprintf("events.schedule.raw-%05d.ticked", i), Header: header, Data: m.Data}
	}
	runtime.GC()
	start := time.Now()
	require.NoError(b, x.bus.PublishAll(b.Context(), messages, 2048))
	return time.Since(start)
}
