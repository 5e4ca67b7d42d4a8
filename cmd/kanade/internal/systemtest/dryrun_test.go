package systemtest

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/libs/events/wire"
)

// told is what a dry run said, and the exec that was asked for with the same plan in the next moment.
type told struct {
	exec  string
	plan  catalog.Plan
	asked time.Time
	dry   dryRun
}

type dryRun struct {
	TargetCount int `json:"target_count"`
	Waves       []struct {
		Label             string    `json:"label"`
		DueAt             time.Time `json:"due_at"`
		After             bool      `json:"after"`
		DelaySecs         uint64    `json:"delay_secs"`
		Pause             bool      `json:"pause"`
		Expected, Waiting []string
		Subjects          []string  `json:"subjects"`
		DeadlineAt        time.Time `json:"deadline_at"`
	} `json:"waves"`
	Command     map[string]any
	Skipped     []events.SkippedPC `json:"skipped"`
	ExpiresAt   time.Time          `json:"expires_at"`
	DeadlineAt  time.Time          `json:"deadline_at"`
	MaxFailures *int               `json:"max_failures"`
	MaxParallel *int               `json:"max_parallel"`
}

// TestDryRunIsWhatTheExecDoes: a dry run names the endpoints, waves, times and commands that the exec then has, whatever
// the plan: the plan is compared, and every command that is stored.
func TestDryRunIsWhatTheExecDoes(t *testing.T) {
	const plans = 30
	synctest.Test(t, func(t *testing.T) {
		w := newTheatre(t, 1, 6)
		w.failing = 0 // a budget that is used up would hold commands back
		w.startAPI()
		settle(time.Second)
		w.cut("pc-05")
		settle(3 * time.Minute) // it is away, and known to be
		stored := w.gather()
		w.write("POST", "/api/jobs", "id: plain\nversion: 1.0.0\nexecute: {shell: sh, timeout: 30s, script: play}\n", "Content-Type", "application/yaml")
		w.write("POST", "/api/jobs", "id: rich\nversion: 2.0.0\nexecute: {shell: sh, timeout: 30s, script: play, args: [-v], env: {COLOR: red}, stdin: y, success_codes: [0, 3]}\n",
			"Content-Type", "application/yaml")
		r := rand.New(rand.NewPCG(5, 5))
		var all []told
		for i := range plans {
			if i == plans/3 {
				w.oldEndpoint("old-01")
			}
			all = append(all, w.tell(r, i))
		}
		settle(4 * time.Minute)
		for _, x := range all {
			w.releasePauses(x)
		}
		settle(40 * time.Minute)
		truths := w.truths()
		commands, skipped, broadcasts := 0, 0, 0
		for i, x := range all {
			x.requirePlan(t, truths[x.exec], i)
			got := stored.of(x.exec)
			x.requireCommands(t, got, i)
			skipped += len(x.dry.Skipped)
			for _, c := range got {
				commands++
				if c.subject == wire.SubjectCommandAll {
					broadcasts++
				}
			}
		}
		require.NotZero(t, skipped, "an old agent was among the targets")
		require.NotZero(t, broadcasts)
		t.Logf("%d plans, %d stored commands, %d of them to all, %d endpoints left out", plans, commands, broadcasts, skipped)
	})
}

// tell asks for a dry run of a plan, and for the exec.
func (w *theatre) tell(r *rand.Rand, i int) told {
	w.t.Helper()
	x := told{plan: w.waves(r)}
	if i%5 == 0 {
		x.plan.Rollout = nil
	}
	if i%3 == 1 {
		at := time.Now().Add(50 * time.Minute).UTC().Truncate(time.Second)
		x.plan.DeadlineAt, x.plan.ExpiresAfter = &at, nil
	}
	if i%4 == 1 {
		x.plan.MaxFailures, x.plan.MaxParallel = &catalog.Amount{Percent: 40}, &catalog.Amount{Count: 5}
	}
	if i%6 == 2 {
		x.plan.Retry = &catalog.Retry{Max: 2, Backoff: "5s"}
	}
	job := []string{"plain", "rich"}[i%2]
	body, err := x.plan.Document()
	require.NoError(w.t, err)
	before, err := w.operator.LastSeq(w.t.Context(), events.StreamLog)
	require.NoError(w.t, err)
	text, _, err := w.try("POST", "/api/exec/"+job+"?dry_run=true", string(body))
	require.NoError(w.t, err)
	require.NoError(w.t, json.Unmarshal(text, &x.dry), "%s", text)
	after, err := w.operator.LastSeq(w.t.Context(), events.StreamLog)
	require.NoError(w.t, err)
	require.Equal(w.t, before, after, "a dry run writes nothing")
	x.asked = time.Now()
	var answer struct {
		ExecID      string `json:"exec_id"`
		TargetCount int    `json:"target_count"`
	}
	require.NoError(w.t, json.Unmarshal(w.write("POST", "/api/exec/"+job, string(body)), &answer))
	require.Equal(w.t, x.dry.TargetCount, answer.TargetCount, "%s", body)
	x.exec = answer.ExecID
	settle(500 * time.Millisecond)
	return x
}

// oldEndpoint makes an endpoint known whose agent is of kanade 0.43.45: it hears no command, for it is not there.
func (w *theatre) oldEndpoint(pc string) {
	w.t.Helper()
	beat, err := json.Marshal(wire.Heartbeat{PCID: pc, At: time.Now(), AgentVersion: "0.43.45", Hostname: pc, OSFamily: "linux"})
	require.NoError(w.t, err)
	_, err = w.operator.JetStream().Publish(w.t.Context(), "heartbeat."+pc, beat)
	require.NoError(w.t, err)
	settle(time.Second)
}

func (w *theatre) releasePauses(x told) {
	if x.plan.Rollout == nil {
		return
	}
	for n, wave := range x.plan.Rollout.Waves {
		if wave.Pause && n < len(x.dry.Waves) {
			w.append(events.WaveAdvanced{ExecID: x.exec, Wave: n})
		}
	}
}

// requirePlan holds a dry run against what the scheduler planned.
func (x told) requirePlan(t *testing.T, truth *truth, i int) {
	t.Helper()
	p := truth.planned
	late := truth.plannedAt.Sub(x.asked).Round(time.Millisecond)
	require.Len(t, p.Waves, len(x.dry.Waves), "plan %d", i)
	for n, wave := range p.Waves {
		d := x.dry.Waves[n]
		require.Equal(t, []any{wave.Label, wave.After, wave.DelaySecs, wave.Pause}, []any{d.Label, d.After, d.DelaySecs, d.Pause})
		require.ElementsMatch(t, wave.Expected, d.Expected)
		require.ElementsMatch(t, wave.Waiting, d.Waiting)
		require.WithinDuration(t, wave.DueAt.Add(-late), d.DueAt, time.Second)
	}
	require.ElementsMatch(t, p.Skipped, x.dry.Skipped)
	require.WithinDuration(t, p.ExpiresAt, x.dry.ExpiresAt, time.Second)
	require.WithinDuration(t, p.DeadlineAt, x.dry.DeadlineAt, time.Second)
	require.Equal(t, []*int{p.MaxFailures, p.MaxParallel}, []*int{x.dry.MaxFailures, x.dry.MaxParallel})
}

// requireCommands holds a dry run against the commands that the broker stored.
func (x told) requireCommands(t *testing.T, got []storedCommand, i int) {
	t.Helper()
	for n, d := range x.dry.Waves {
		var subjects []string
		for _, c := range got {
			if c.wave == n {
				subjects = append(subjects, c.subject)
			}
		}
		require.ElementsMatch(t, d.Subjects, subjects, "plan %d, wave %d", i, n)
	}
	for _, c := range got {
		require.Less(t, c.wave, len(x.dry.Waves))
		said, d := c.said, x.dry.Waves[c.wave]
		at, err := time.Parse(time.RFC3339Nano, said["deadline_at"].(string))
		require.NoError(t, err)
		switch {
		case x.plan.DeadlineAt != nil:
			require.True(t, at.Equal(*x.plan.DeadlineAt) && at.Equal(d.DeadlineAt), "plan %d: deadline %s, told %s", i, at, d.DeadlineAt)
		case d.After || d.Pause || x.plan.MaxParallel != nil:
			require.False(t, at.Before(d.DeadlineAt), "a wave that goes out later has no earlier deadline")
		default:
			require.WithinDuration(t, d.DeadlineAt, at, 2*time.Second)
		}
		for _, own := range []string{"deadline_at", "exec_id", "request_id"} {
			delete(said, own)
		}
		require.Equal(t, x.dry.Command, said, "plan %d", i)
	}
}

// storedCommand is a message of EXEC.
type storedCommand struct {
	exec, subject string
	wave          int
	said          map[string]any
}

// commandsSeen are the commands that were stored, also those that have been taken out since.
type commandsSeen struct {
	mu  sync.Mutex
	all []storedCommand
}

func (s *commandsSeen) of(exec string) []storedCommand {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.all), func(c storedCommand) bool { return c.exec != exec })
}

// gather follows EXEC until the test ends.
func (w *theatre) gather() *commandsSeen {
	w.t.Helper()
	s, b := &commandsSeen{}, bustest.Dial(w.t, w.broker)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- b.Follow(ctx, bus.FollowConfig{Stream: events.StreamExec}, func(_ context.Context, batch []bus.RawMsg) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, m := range batch {
				c := storedCommand{subject: m.Subject}
				id := strings.Split(m.Header[events.HeaderMsgID][0], "/") // exec, wave, subject
				var err error
				if c.wave, err = strconv.Atoi(id[1]); err != nil {
					return fmt.Errorf("message id %s: %w", strings.Join(id, "/"), err)
				}
				if err := json.Unmarshal(m.Data, &c.said); err != nil {
					return err
				}
				c.exec = id[0]
				s.all = append(s.all, c)
			}
			return nil
		})
	}()
	w.t.Cleanup(func() {
		stop()
		require.NoError(w.t, <-ended)
	})
	return s
}
