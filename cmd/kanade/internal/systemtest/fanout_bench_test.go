//go:build unix

package systemtest

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
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
	var e struct {
		ExecID string `json:"exec_id"`
	}
	f.do("POST", "/api/exec/bench", "application/json", body, &e)
	took = f.receipts.last(f.b).Sub(start)
	commands = f.commands(e.ExecID)
	close(gate)
	deadline := time.Now().Add(time.Minute)
	for f.fleet.Runs() < runs+fanoutFleet {
		if time.Now().After(deadline) {
			f.b.Fatalf("%d runs of %d", f.fleet.Runs()-runs, fanoutFleet)
		}
		time.Sleep(10 * time.Millisecond)
	}
	f.until(e.ExecID, 50*time.Millisecond, func(s state) bool { return s.Execution.Outcome != nil })
	return start, e.ExecID, took, commands
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
