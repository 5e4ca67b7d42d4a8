// Package runner carries out commands, each at most once.
//
// The protocol. (1) One transaction makes the ledger entry and puts RunReceived into the outbox. (2) The gates decide
// whether it runs. (3) One transaction marks the entry started and puts RunStarted into the outbox; only then a child is
// started. (4) It runs. (5) One transaction marks the entry done and puts RunFinished into the outbox.
//
// After a crash: an entry that is received goes on with (2); one that is started is answered with RunFinished, state
// unknown, and never run again. On a clean stop what runs is killed and reported as killed with the reason "agent
// stopped", because a script that outlives its agent could not be answered for; what waits is left for the next start.
//
// Commands begin in the order in which they were heard, at most Limit at once. One that waits for its jitter takes no
// place.
//
// Stops. Whether an exec was killed, cancelled or halted is in the bucket exec_stopped. It is looked up before anything
// begins that has waited, before every further attempt, and for all that waits or runs when the connection is back. Each
// of them keeps what waits from beginning; only a kill ends what has begun, with the attempts that it has left. While the
// broker can't be asked, commands begin and attempts go on, and the answer is heeded when there is one; only a command
// whose staleness is strict does not begin once the connection has been gone for longer than it allows.
package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"kanade/libs/bus"
	"kanade/services/agent/internal/domain"
	"kanade/services/agent/internal/ledger"
	"kanade/services/agent/internal/metrics"
)

// Config of a runner. Every field is needed.
type Config struct {
	Bus      *bus.Bus
	Ledger   *ledger.Ledger
	Executor domain.Executor
	PCID     string
	// Spool is the directory of outputs on their way to the object store.
	Spool string
	// Limit is how many commands are carried out at once.
	Limit int
	// Jitter draws a wait in [0, n).
	Jitter func(n time.Duration) time.Duration
	// Wake tells the outbox that there is something.
	Wake    func()
	Logger  *slog.Logger
	Metrics *metrics.Metrics
}

// Runner carries out commands. Make it with New.
type Runner struct {
	Config
	work sync.WaitGroup
	// unanswered says that something goes on of which the broker could not say whether it was stopped.
	unanswered chan struct{}

	mu    sync.Mutex
	queue []task
	more  chan struct{}
	// runs are the ways to end what has begun, or is about to begin, by request.
	runs map[string]context.CancelCauseFunc
}

// task is a command in the queue; its body is in the ledger.
type task struct {
	requestID string
	heard     time.Time
	// late: it may have been called off since it was sent. gated: the gates let it pass. jittered: its jitter is over.
	late, gated, jittered bool
}

// New makes a runner; Recover, then Run.
func New(c Config) *Runner {
	return &Runner{
		Config: c, more: make(chan struct{}, 1), unanswered: make(chan struct{}, 1), runs: map[string]context.CancelCauseFunc{},
	}
}

// Receive puts a command into the ledger and the queue, unless it is known. An error means that the ledger could not be
// written. A message that is no command is logged and dropped: there is no run to report on.
func (r *Runner) Receive(ctx context.Context, h domain.Heard) error {
	c, err := domain.ParseCommand(h.Data)
	if err != nil {
		r.Metrics.Heard.WithLabelValues("unreadable").Inc()
		r.Logger.Warn("a command can't be read", "error", err)
		return nil
	}
	if known, err := r.Ledger.Known(c.RequestID); known || err != nil {
		r.Metrics.Heard.WithLabelValues("duplicate").Inc()
		return err
	}
	at := r.stamp(ctx)
	late := h.Late || !h.SentAt.IsZero() && at.Broker.Sub(h.SentAt) > moment
	e := domain.NewEntry(c, h.TraceParent, r.PCID, at.Own)
	m, err := domain.Received(e, at)
	if err != nil {
		return err
	}
	fresh, err := r.Ledger.Receive(e, m)
	if err != nil || !fresh {
		return err
	}
	way := "live"
	if h.Late {
		way = "catch_up"
	}
	r.Metrics.Heard.WithLabelValues(way).Inc()
	r.Logger.Info("command received", "job", c.JobID, "exec", c.ExecID, "request", c.RequestID, "way", way)
	r.Wake()
	r.push(task{requestID: c.RequestID, heard: at.Own, late: late})
	return nil
}

// Recover takes up what a predecessor left. Call it once, before Run.
func (r *Runner) Recover(ctx context.Context) error {
	open, err := r.Ledger.Open()
	if err != nil {
		return err
	}
	for _, e := range open {
		if e.State == domain.EntryReceived {
			r.push(task{requestID: e.Run.RequestID, heard: e.ReceivedAt, late: true})
			continue
		}
		r.Logger.Warn("the agent died while a script ran; it is not run again", "job", e.Run.JobID, "exec", e.Run.ExecID, "result_id", e.Run.ResultID)
		if err := r.finish(ctx, e, domain.Lost(), outputs{}); err != nil {
			return err
		}
	}
	return nil
}

// Run carries out what is in the queue until ctx is done, then kills what runs and returns when all of it is in the
// ledger.
func (r *Runner) Run(ctx context.Context) error {
	defer r.work.Wait()
	connected := r.Bus.Conn().StatusChanged(nats.CONNECTED)
	defer r.Bus.Conn().RemoveStatusListener(connected)
	heeding, stop := context.WithCancel(ctx)
	defer stop()
	r.work.Go(func() { r.heed(heeding, connected) })
	slots := make(chan struct{}, r.Limit)
	for {
		t, ok := r.pop()
		if !ok {
			select {
			case <-ctx.Done():
				return nil
			case <-r.more:
			}
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			select {
			case <-ctx.Done():
				return nil
			case slots <- struct{}{}:
			}
			t.late = true
			r.queued()
		}
		r.work.Go(func() {
			defer func() { <-slots }()
			if err := r.carryOut(ctx, t); err != nil {
				r.Logger.Error("a command could not be carried on; it will be at the next start", "request", t.requestID, "error", err)
			}
		})
	}
}

func (r *Runner) push(t task) {
	r.mu.Lock()
	r.queue = append(r.queue, t)
	r.mu.Unlock()
	select {
	case r.more <- struct{}{}:
	default:
	}
}

func (r *Runner) pop() (task, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) == 0 {
		return task{}, false
	}
	t := r.queue[0]
	r.queue = r.queue[1:]
	return t, true
}

// queued notes that whatever is in the queue has waited for a place.
func (r *Runner) queued() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.queue {
		r.queue[i].late = true
	}
}

// later puts a task back into the queue after a wait that takes no place.
func (r *Runner) later(ctx context.Context, t task, wait time.Duration) {
	r.work.Go(func() {
		if pause(ctx, wait) {
			r.push(t)
		}
	})
}

// pause waits, and reports whether the wait was completed before ctx was done.
func pause(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// clockTimeout bounds the question for the broker's clock, which is asked once a minute.
const clockTimeout = time.Second

// stamp is now on both clocks. While the broker can't be asked, this endpoint's clock stands for its.
func (r *Runner) stamp(ctx context.Context) domain.Stamp {
	own := time.Now()
	if !r.Bus.Connected() {
		return domain.Stamp{Own: own, Broker: own}
	}
	ctx, cancel := context.WithTimeout(ctx, clockTimeout)
	defer cancel()
	broker, err := r.Bus.Now(ctx)
	if err != nil {
		broker = own
	}
	return domain.Stamp{Own: own, Broker: broker}
}

// persist writes to the ledger, again and again while a disk refuses: what has happened must not be forgotten. It gives
// up when ctx is done, or when the entry is not where it was thought to be.
func (r *Runner) persist(ctx context.Context, write func() error) error {
	for {
		err := write()
		if err == nil {
			r.Wake()
			return nil
		}
		if errors.Is(err, ledger.ErrState) || !pause(ctx, time.Second) {
			return fmt.Errorf("write ledger: %w", err)
		}
		r.Logger.Error("the ledger can't be written; trying again", "error", err)
	}
}
