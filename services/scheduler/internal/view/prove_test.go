package view_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
	"kanade/libs/events/wire"
)

// Old CLIs write the buckets while operators write the log, and two schedulers, whose broker answers slowly, are killed,
// fail, and now and then both handle the same message at once. Whenever everybody is quiet, each key shows the newest
// fact, which says what the newest act said by the broker's clock, whichever way it came; and no act is in the log twice.
func TestProveAdoptionConverges(t *testing.T) {
	seeds, acts, adopted := 40, 0, 0
	if testing.Short() {
		seeds = 8
	}
	for seed := range uint64(seeds) {
		synctest.Test(t, func(t *testing.T) {
			o := operators{world: newWorld(t), rand: rand.New(rand.NewPCG(seed, 1)), latest: map[string]act{}, junk: map[string]int{}}
			o.runAll(seed)
			for range 3 {
				for range 15 {
					o.step()
				}
				pass(3 * time.Minute)
				o.requireQuiet(seed)
			}
			acts += o.acts
			for _, bucket := range []string{groups, status} {
				adopted += o.adoptions(bucket)["adopted"]
			}
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	require.Greater(t, adopted, seeds)
	t.Logf("seeds 0 to %d: %d acts, %d adoptions", seeds-1, acts, adopted)
}

// operators act at random, and know what the newest act was.
type operators struct {
	*world
	rand   *rand.Rand
	stops  [2]func()
	start  func(i int)
	acts   int
	latest map[string]act // by bucket/key
	junk   map[string]int
}

// act is what a key should show.
type act struct {
	at    time.Time
	value string
}

func (o *operators) runAll(seed uint64) {
	o.start = func(i int) {
		n := seed*2 + uint64(i)
		o.stops[i] = o.run(20*time.Millisecond, bustest.RandomFail(n, 0.2), bustest.Duplicate(n, 0.2), twiceAtOnce(n, 0.3))
	}
	o.start(0)
	o.start(1)
}

// twiceAtOnce has a message handled by two at the same time, as when one that was given up goes on.
func twiceAtOnce(seed uint64, p float64) message.HandlerMiddleware {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(seed, 2))
	return func(next message.HandlerFunc) message.HandlerFunc {
		return func(w *message.Message) ([]*message.Message, error) {
			mu.Lock()
			both, late := r.Float64() < p, time.Duration(r.IntN(int(50*time.Millisecond)))
			mu.Unlock()
			var other error
			var ended sync.WaitGroup
			if both {
				again := w.Copy()
				again.SetContext(w.Context())
				ended.Go(func() {
					time.Sleep(late)
					_, other = next(again)
				})
			}
			out, err := next(w)
			ended.Wait()
			return out, errors.Join(err, other)
		}
	}
}

// pause takes up to n milliseconds, and never none.
func (o *operators) pause(n int) {
	pass(time.Microsecond + time.Duration(o.rand.Int64N(int64(n)*int64(time.Millisecond))))
}

// step is one act, or the end of a scheduler. Between two acts the broker's clock moves, so that one of them is newer.
func (o *operators) step() {
	o.t.Helper()
	o.pause(1 + o.rand.IntN(100))
	pc, job := fmt.Sprintf("pc%d", o.rand.IntN(2)), "job"
	list := []string{"a", "b", "c"}[:o.rand.IntN(4)]
	switch o.rand.IntN(12) {
	case 0, 1, 2: // group set
		o.write(groups, pc, groupsText(list...))
	case 3, 4: // group add: get, and a blind put
		var g wire.AgentGroups
		if entry, err := o.kv(groups).Get(o.t.Context(), pc); err == nil {
			_ = json.Unmarshal(entry.Value(), &g)
		}
		o.pause(50)
		o.write(groups, pc, groupsText(append(g.Groups, "d")...))
	case 5:
		require.NoError(o.t, o.kv(groups).Delete(o.t.Context(), pc))
		o.acted(groups, pc, groupsText())
	case 6, 7:
		o.write(status, job, []string{"REVOKED", "ACTIVE"}[o.rand.IntN(2)])
	case 8:
		if o.junk[pc]++; o.junk[pc] <= 3 { // the bucket remembers five revisions
			o.put(groups, pc, "junk")
		}
	case 9:
		o.fact(events.AggregateAgent, events.AgentGrouped{PCID: pc, Groups: list}, groups, groupsText(list...))
	case 10:
		if o.rand.IntN(2) == 0 {
			o.fact(events.AggregateScript, events.ScriptRevoked{JobID: job}, status, "REVOKED")
		} else {
			o.fact(events.AggregateAgent, events.AgentSeen{PCID: pc, AgentVersion: "1"}, "", "")
		}
	default:
		i := o.rand.IntN(2)
		o.stops[i]()
		o.pause(1000)
		o.start(i)
	}
}

func (o *operators) write(bucket, key, value string) {
	o.put(bucket, key, value)
	o.acted(bucket, key, value)
}

// fact is an act by the api: it folds, takes its time, and appends unless somebody else did.
func (o *operators) fact(a events.Aggregate, p events.Payload, bucket, value string) {
	last, _, err := o.bus.LastRaw(o.t.Context(), events.StreamLog, events.AggregateFilter(a, p.AggregateID()))
	require.NoError(o.t, err)
	o.pause(20)
	_, err = o.append(p, last.Seq)
	if errors.Is(err, bus.ErrConflict) {
		return
	}
	require.NoError(o.t, err)
	o.acted(bucket, p.AggregateID(), value)
}

func (o *operators) acted(bucket, key, value string) {
	o.acts++
	o.latest[bucket+"/"+key] = act{time.Now(), value}
}

func (o *operators) requireQuiet(seed uint64) {
	o.t.Helper()
	for _, k := range []struct {
		bucket, key string
		aggregate   events.Aggregate
		nothing     string
	}{{groups, "pc0", events.AggregateAgent, groupsText()}, {groups, "pc1", events.AggregateAgent, groupsText()}, {status, "job", events.AggregateScript, "ACTIVE"}} {
		want, made := k.nothing, uint64(0)
		for _, s := range o.facts(k.aggregate, k.key) {
			p, err := s.Payload()
			require.NoError(o.t, err)
			switch p := p.(type) {
			case events.AgentGrouped:
				want, made = groupsText(p.Groups...), s.Seq
			case events.ScriptRevoked:
				want, made = "REVOKED", s.Seq
			case events.ScriptUnrevoked:
				want, made = "ACTIVE", s.Seq
			}
		}
		got, seq := o.shown(k.bucket, k.key)
		require.Equal(o.t, made, seq, "seed %d: %s of %s is not made from the newest fact", seed, k.key, k.bucket)
		if got == "-" && made == 0 {
			got = k.nothing
		}
		require.Equal(o.t, want, got, "seed %d: %s of %s", seed, k.key, k.bucket)
		if newest, ok := o.latest[k.bucket+"/"+k.key]; ok {
			require.Equal(o.t, want, newest.value, "seed %d: %s of %s: the act of %s is lost", seed, k.key, k.bucket, newest.at)
		}
	}
}

func groupsText(list ...string) string {
	list = slices.Clone(list)
	slices.Sort(list)
	value, _ := json.Marshal(map[string][]string{"groups": append([]string{}, slices.Compact(list)...)})
	return string(value)
}
