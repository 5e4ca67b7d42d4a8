//go:build unix

package systemtest

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/services/agent/sim"
)

// fanoutFleet is how many endpoints BenchmarkFanout has.
const fanoutFleet = 10_000

// BenchmarkFanout is the time from POST /api/exec to the receipt of the command by the last of 10 000 connected endpoints,
// for an exec to all, to a group that everybody is in, and to everybody by name. Against it stand the same messages, under
// ids of their own, published again to the same subjects by somebody who waits for nothing (raw), and by somebody who has
// every one acknowledged (acked). Endpoints hold their answers back until everybody has the command. Each has a
// connection of its own, as far as half of the files that the process may have open allow; the others share.
func BenchmarkFanout(b *testing.B) {
	f := newFanoutBench(b)
	pcs, err := json.Marshal(f.pcs)
	require.NoError(b, err)
	for _, c := range []struct{ name, target string }{
		{"all", `{"target":{"all":true}}`},
		{"group", `{"target":{"groups":["bench"]}}`},
		{"explicit", `{"target":{"pcs":` + string(pcs) + `}}`},
	} {
		b.Run(c.name, func(b *testing.B) { f.measure(b, c.target) })
	}
}

// fanoutBench is a system with a fleet that counts what it receives.
type fanoutBench struct {
	*bench
	pcs       []string
	conns     int
	fleet     *sim.Fleet
	receipts  *receipts
	gate      atomic.Pointer[chan struct{}]
	publisher *bus.Bus
}

func newFanoutBench(b *testing.B) *fanoutBench {
	f := &fanoutBench{bench: newBench(b, false), receipts: newReceipts(fanoutFleet)}
	f.job()
	var files syscall.Rlimit
	require.NoError(b, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files))
	f.conns = int(min(fanoutFleet, (files.Cur-files.Cur/10)/2)) // both ends are here, and others have files
	c := sim.Config{
		Heartbeat: time.Minute, Logger: quiet(b), Groups: func(string) []string { return []string{"bench"} },
		Heard: func(string) { f.receipts.one() }, Hold: func() <-chan struct{} { return *f.gate.Load() },
	}
	for i := range f.conns {
		c.Buses = append(c.Buses, f.connect(fmt.Sprintf("line-%05d", i)))
	}
	for i := range fanoutFleet {
		f.pcs = append(f.pcs, fmt.Sprintf("pc-%05d", i))
	}
	c.PCs = f.pcs
	f.publisher = f.connect("bench")
	f.group()
	var err error
	f.fleet, err = sim.Start(b.Context(), c)
	require.NoError(b, err)
	b.Cleanup(f.fleet.Close)
	f.agents(fanoutFleet)
	return f
}

// group puts everybody into one.
func (f *fanoutBench) group() {
	f.b.Helper()
	var all sync.WaitGroup
	next := make(chan string, len(f.pcs))
	for _, pc := range f.pcs {
		next <- pc
	}
	close(next)
	for range 32 {
		all.Go(func() {
			for pc := range next {
				e, err := events.New(events.AgentGrouped{PCID: pc, Groups: []string{"bench"}}, events.Meta{
					ID: uuid.NewString(), Source: "/kanade/test", Time: time.Now(), Actor: "user:operator",
				})
				if err == nil {
					_, err = f.publisher.Append(f.b.Context(), e, bus.Any)
				}
				if err != nil {
					f.b.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// measure does one form of an exec.
func (f *fanoutBench) measure(b *testing.B, body string) {
	f.send(body) // the first one finds everything cold
	var ours, raw, acked []time.Duration
	var began []time.Time
	var execs []string
	for b.Loop() {
		start, id, took, commands := f.send(body)
		began, execs, ours = append(began, start), append(execs, id), append(ours, took)
		raw = append(raw, f.again(commands, func(messages []*nats.Msg) {
			for _, m := range messages {
				require.NoError(b, f.publisher.Conn().PublishMsg(m))
			}
			require.NoError(b, f.publisher.Conn().Flush())
		}))
		acked = append(acked, f.again(commands, func(messages []*nats.Msg) {
			require.NoError(b, f.publisher.PublishAll(b.Context(), messages, 2048))
		}))
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ms(at(0.5, ours)), "ms")
	b.ReportMetric(ms(at(0.5, raw)), "raw-ms")
	b.ReportMetric(ms(at(0.5, acked)), "acked-ms")
	b.ReportMetric(float64(at(0.5, raw))/float64(at(0.5, ours)), "of-ceiling")
	b.ReportMetric(float64(at(0.5, acked))/float64(at(0.5, ours)), "of-acked")
	b.ReportMetric(float64(f.conns), "connections")
	b.Logf("ours %v, raw %v, acked %v", ours, raw, acked)
	logged := *f.bench
	logged.b = b
	logged.logFacts(began, execs, false)
}

// send runs the job and gives how long it took until everybody had the command, and the commands.
func (f *fanoutBench) send(body string) (start time.Time, id string, took time.Duration, commands []bus.RawMsg) {
	f.b.Helper()
	f.purge()
	gate := make(chan struct{})
	f.gate.Store(&gate)
	runs := f.fleet.Runs()
	runtime.GC()
	start = f.receipts.begin()
	id = f.post(body)
	took = f.receipts.last(f.b).Sub(start)
	commands = f.commands(id)
	close(gate)
	deadline := time.Now().Add(time.Minute)
	for f.fleet.Runs() < runs+fanoutFleet {
		if time.Now().After(deadline) {
			f.b.Fatalf("%d runs of %d", f.fleet.Runs()-runs, fanoutFleet)
		}
		time.Sleep(10 * time.Millisecond)
	}
	f.seen = "" // the read model may be far behind
	f.until(id, 50*time.Millisecond, func(s state) bool { return s.Execution.Outcome != nil })
	return start, id, took, commands
}

// again publishes the commands once more.
func (f *fanoutBench) again(commands []bus.RawMsg, publish func([]*nats.Msg)) time.Duration {
	f.b.Helper()
	gate := make(chan struct{})
	f.gate.Store(&gate)
	messages, prefix := make([]*nats.Msg, len(commands)), uuid.NewString()
	for i, c := range commands {
		messages[i] = &nats.Msg{Subject: c.Subject, Data: c.Data, Header: nats.Header{events.HeaderMsgID: {prefix + c.Subject}}}
	}
	runtime.GC()
	start := f.receipts.begin()
	publish(messages)
	took := f.receipts.last(f.b).Sub(start)
	close(gate) // everybody knows the request: nobody answers
	return took
}

// commands are those that the log holds of an exec; the last ones may still be on their way there.
func (f *fanoutBench) commands(exec string) (commands []bus.RawMsg) {
	f.b.Helper()
	require.Eventually(f.b, func() bool {
		facts, err := f.publisher.Load(f.b.Context(), events.AggregateExec, exec, 0)
		return err == nil && strings.Contains(facts[len(facts)-1].Type, "wave-dispatched")
	}, time.Minute, time.Millisecond)
	last, err := f.publisher.LastSeq(f.b.Context(), events.StreamExec)
	require.NoError(f.b, err)
	ctx, done := context.WithCancel(f.b.Context())
	defer done()
	require.NoError(f.b, f.publisher.Follow(ctx, bus.FollowConfig{Stream: events.StreamExec}, func(_ context.Context, batch []bus.RawMsg) error {
		for _, m := range batch {
			commands = append(commands, m)
			if m.Seq >= last {
				done()
			}
		}
		return nil
	}))
	return commands
}

// purge empties EXEC.
func (f *fanoutBench) purge() {
	f.b.Helper()
	stream, err := f.publisher.JetStream().Stream(f.b.Context(), events.StreamExec)
	require.NoError(f.b, err)
	require.NoError(f.b, stream.Purge(f.b.Context()))
}

// BenchmarkDispatch100k is an exec with 100 000 endpoints by name, nobody of which is there: from its request to
// WaveDispatched, by the log's clock (ms), the rest of its way into the read model not counted. heap-MB is how far the heap
// in use of the whole process grew meanwhile: broker, api, scheduler and projector. Meanwhile small execs to one connected
// endpoint are posted, one after the other, from the first command on: small-ms is the median of the time from request to
// receipt, small-max-ms the longest, alone-ms the same while nothing else goes on.
func BenchmarkDispatch100k(b *testing.B) {
	const n = 100_000
	x := newBench(b, false)
	x.job()
	pcs := make([]string, n)
	for i := range pcs {
		pcs[i] = fmt.Sprintf("away-%06d", i)
	}
	names, err := json.Marshal(pcs)
	require.NoError(b, err)
	huge := `{"target":{"pcs":` + string(names) + `}}`
	one := newReceipts(1)
	fleet, err := sim.Start(b.Context(), sim.Config{
		Buses: []*bus.Bus{x.connect("urgent")}, PCs: []string{"urgent"}, Heartbeat: time.Minute, Logger: quiet(b), Heard: func(string) { one.one() },
	})
	require.NoError(b, err)
	b.Cleanup(fleet.Close)
	x.agents(1)
	c := x.connect("bench")
	small := func() time.Duration {
		start := one.begin()
		x.post(`{"target":{"pcs":["urgent"]}}`)
		return one.last(b).Sub(start)
	}
	var took, smalls, alone []time.Duration
	var grown []float64
	for b.Loop() {
		for range 10 {
			alone = append(alone, small())
		}
		runtime.GC()
		heap, began := watchHeap(), time.Now()
		id := x.post(huge)
		for len(x.stored(c, id, "wave-released")) == 0 {
			time.Sleep(time.Millisecond)
		}
		var dispatched []bus.Stored
		for len(dispatched) == 0 {
			smalls = append(smalls, small())
			dispatched = x.stored(c, id, "wave-dispatched")
		}
		grown = append(grown, heap()/(1<<20))
		took = append(took, dispatched[0].StoredAt.Sub(began))
		x.do("POST", "/api/executions/"+id+"/kill", "application/json", "{}", nil)
		x.seen = "" // the read model may be far behind
		x.until(id, 100*time.Millisecond, func(s state) bool { return s.Execution.Outcome != nil })
		left := uint64(len(alone) + len(smalls)) // the kill deletes the others
		require.Eventually(b, func() bool { return messages(b, c) <= left }, time.Minute, 20*time.Millisecond)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ms(at(0.5, took)), "ms")
	b.ReportMetric(slices.Max(grown), "heap-MB")
	b.ReportMetric(ms(at(0.5, smalls)), "small-ms")
	b.ReportMetric(ms(slices.Max(smalls)), "small-max-ms")
	b.ReportMetric(ms(at(0.5, alone)), "alone-ms")
	b.Logf("took %v, heap %.0f MB, %d small execs", took, grown, len(smalls))
}

// messages is how many commands there are.
func messages(b *testing.B, c *bus.Bus) uint64 {
	b.Helper()
	stream, err := c.JetStream().Stream(b.Context(), events.StreamExec)
	require.NoError(b, err)
	return stream.CachedInfo().State.Msgs
}

// post runs the job and gives the exec's id.
func (x *bench) post(body string) string {
	x.b.Helper()
	var e struct {
		ExecID string `json:"exec_id"`
	}
	x.do("POST", "/api/exec/bench", "application/json", body, &e)
	return e.ExecID
}

// stored is the newest fact of a kind of an exec, or nothing.
func (x *bench) stored(c *bus.Bus, exec, kind string) []bus.Stored {
	x.b.Helper()
	s, ok, err := c.Last(x.b.Context(), events.StreamLog, events.FactSubject(events.AggregateExec, exec, kind))
	require.NoError(x.b, err)
	if !ok {
		return nil
	}
	return []bus.Stored{s}
}

// watchHeap looks at the heap in use from here on; what it gives ends that and says how far it grew, in bytes.
func watchHeap() func() float64 {
	read := func() float64 {
		s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}}
		metrics.Read(s)
		return float64(s[0].Value.Uint64() + s[1].Value.Uint64())
	}
	before, end, peak := read(), make(chan struct{}), make(chan float64)
	go func() {
		most := before
		for {
			select {
			case <-end:
				peak <- most - before
				return
			case <-time.After(2 * time.Millisecond):
				most = max(most, read())
			}
		}
	}()
	return func() float64 { close(end); return <-peak }
}
