package systemtest

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/libs/events/wire"
	"kanade/services/agent/sim"
)

// BenchmarkExecToVisible is the time from POST /api/exec to the result in GET /api/executions/{id}: one endpoint, a real
// agent, a real shell. It logs when the log had which fact, in the median.
func BenchmarkExecToVisible(b *testing.B) {
	x := newBench(b, true)
	x.job()
	x.agents(1)
	var took []time.Duration
	var began []time.Time
	var execs []string
	for b.Loop() {
		start := time.Now()
		id := x.exec()
		x.until(id, 200*time.Microsecond, func(s state) bool { return len(s.Results) == 1 && s.Results[0].State == "succeeded" })
		took, began, execs = append(took, time.Since(start)), append(began, start), append(execs, id)
		b.StopTimer()
		x.until(id, time.Millisecond, func(s state) bool { return s.Execution.Outcome != nil })
		b.StartTimer()
	}
	b.ReportMetric(ms(at(0.5, took)), "ms")
	b.ReportMetric(ms(at(0.99, took)), "p99-ms")
	x.logFacts(began, execs, true)
}

// logFacts logs how long after its request each fact of an exec was stored, in the median. runs says that pc-01 ran all
// of them, and nothing else.
func (x *bench) logFacts(began []time.Time, execs []string, runs bool) {
	c := x.connect("bench-facts")
	after := map[string][]time.Duration{}
	var order []string
	load := func(a events.Aggregate, id string, exec func(fact int) int) {
		facts, err := c.Load(x.b.Context(), a, id, 0)
		require.NoError(x.b, err)
		for k, f := range facts {
			if after[f.Type] == nil {
				order = append(order, f.Type)
			}
			if i := exec(k); i < len(began) {
				after[f.Type] = append(after[f.Type], f.StoredAt.Sub(began[i]))
			}
		}
	}
	for i, id := range execs {
		load(events.AggregateExec, id, func(int) int { return i })
	}
	if runs {
		load(events.AggregateRun, "pc-01", func(k int) int { return k / 3 }) // received, started, finished
	}
	for _, t := range order {
		x.b.Logf("%-30s %6.2f ms", t, ms(at(0.5, after[t])))
	}
}

// BenchmarkBroadcast is the time from POST /api/exec to the receipt of the command by the last of 1 000 connected
// endpoints, against the same bytes published once to as many subscribers on the same connections. Endpoints answer at
// once, so that their answers compete with the broadcast for the same few processors, as those of a real fleet do not:
// held-ms is with answers that wait until everybody has received the command.
func BenchmarkBroadcast(b *testing.B) {
	const n = 1000
	x := newBench(b, false)
	x.job()
	ours, raw := newReceipts(n), newReceipts(n)
	var hold atomic.Pointer[chan struct{}] // what answers wait for
	fleet := sim.Config{Heartbeat: 30 * time.Second, Logger: quiet(b), Heard: func(string) {
		ours.one()
		if gate := hold.Load(); gate != nil {
			<-*gate
		}
	}}
	for i := range n {
		c := x.connect(fmt.Sprintf("pc-%04d", i))
		fleet.Buses, fleet.PCs = append(fleet.Buses, c), append(fleet.PCs, fmt.Sprintf("pc-%04d", i))
		_, err := c.Conn().Subscribe("bench.raw", func(*nats.Msg) { raw.one() })
		require.NoError(b, err)
		require.NoError(b, c.Conn().Flush())
	}
	f, err := sim.Start(b.Context(), fleet)
	require.NoError(b, err)
	b.Cleanup(f.Close)
	x.agents(n)
	publisher := x.connect("bench")
	var began []time.Time
	var execs []string
	exec := func(gate *chan struct{}) time.Duration {
		hold.Store(gate)
		start := ours.begin()
		id := x.exec()
		began, execs = append(began, start), append(execs, id)
		took := ours.last(b).Sub(start)
		if gate != nil {
			close(*gate)
		}
		x.until(id, 20*time.Millisecond, func(s state) bool { return s.Execution.Outcome != nil && len(s.Results) == n })
		return took
	}
	var tookOurs, tookHeld, tookRaw []time.Duration
	for b.Loop() {
		tookOurs = append(tookOurs, exec(nil))
		gate := make(chan struct{})
		tookHeld = append(tookHeld, exec(&gate))
		message := x.command(publisher)
		start := raw.begin()
		require.NoError(b, publisher.Conn().PublishMsg(message))
		require.NoError(b, publisher.Conn().Flush())
		tookRaw = append(tookRaw, raw.last(b).Sub(start))
	}
	mine, held, ceiling := at(0.5, tookOurs), at(0.5, tookHeld), at(0.5, tookRaw)
	b.ReportMetric(ms(mine), "ms")
	b.ReportMetric(ms(held), "held-ms")
	b.ReportMetric(ms(ceiling), "raw-ms")
	b.ReportMetric(float64(ceiling)/float64(mine), "of-ceiling")
	b.ReportMetric(float64(ceiling)/float64(held), "held-of-ceiling")
	x.logFacts(began, execs, false)
}

// command is the last command that went to everybody, for another subject.
func (x *bench) command(c *bus.Bus) *nats.Msg {
	m, ok, err := c.LastRaw(x.b.Context(), events.StreamExec, wire.SubjectCommandAll)
	require.NoError(x.b, err)
	require.True(x.b, ok)
	require.True(x.b, strings.Contains(string(m.Data), "bench"))
	return &nats.Msg{Subject: "bench.raw", Header: nats.Header(m.Header), Data: m.Data}
}

// receipts counts what arrives and notes when the last one did.
type receipts struct {
	want int64
	got  atomic.Int64
	done chan time.Time
}

func newReceipts(want int64) *receipts { return &receipts{want: want, done: make(chan time.Time, 1)} }

func (r *receipts) begin() time.Time {
	r.got.Store(0)
	return time.Now()
}

func (r *receipts) one() {
	if r.got.Add(1) == r.want {
		r.done <- time.Now()
	}
}

func (r *receipts) last(b *testing.B) time.Time {
	b.Helper()
	select {
	case t := <-r.done:
		return t
	case <-time.After(time.Minute):
		b.Fatalf("%d of %d received it", r.got.Load(), r.want)
		return time.Time{}
	}
}
