package runner

import (
	"context"
	"time"

	"kanade/libs/events"
	"kanade/services/agent/internal/bucket"
	"kanade/services/agent/internal/domain"
)

// moment is how long a command may have waited and still be taken as just heard.
const moment = 2 * time.Second

// gates looks up what decides whether a command runs, and decides. A lookup that fails passes. What any replica says is
// enough to run; to skip for pin or revocation the leader has to say so, for a follower may lag behind the pin that was
// set for this very command. An error means that the leader can't be asked: it is too early to decide.
func (r *Runner) gates(ctx context.Context, c domain.Command) (skip domain.Skip, yes bool, err error) {
	g := domain.Gates{
		Current: r.lookup(ctx, events.BucketScriptCurrent, c.JobID), Status: r.lookup(ctx, events.BucketScriptStatus, c.JobID),
		Now: time.Now(), ShellSupported: r.Executor.Supports(c.Script.Shell),
		Connected: r.Bus.Connected(), ConnectedAt: r.Bus.ConnectedAt(),
	}
	skip, yes = c.Decide(g)
	if !yes || skip.Reason != events.SkipReasonVersion && skip.Reason != events.SkipReasonRevoked {
		return skip, yes, nil
	}
	if g.Current, err = r.leader(ctx, events.BucketScriptCurrent, c.JobID); err == nil {
		g.Status, err = r.leader(ctx, events.BucketScriptStatus, c.JobID)
	}
	if err != nil {
		return domain.Skip{}, false, err
	}
	skip, yes = c.Decide(g)
	return skip, yes, nil
}

// leader is lookup at the bucket's leader.
func (r *Runner) leader(ctx context.Context, name, key string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, bucket.Timeout)
	defer cancel()
	value, _, _, _, err := r.Bus.GetView(ctx, name, key)
	return string(value), err
}

func (r *Runner) lookup(ctx context.Context, name, key string) string {
	if events.ValidID(key) != nil {
		return ""
	}
	v, ok, err := bucket.Reader{Bus: r.Bus}.Get(ctx, name, key)
	if err != nil {
		r.Logger.Warn("a gate can't be looked up; it passes", "bucket", name, "key", key, "error", err)
	}
	if err != nil || !ok {
		return ""
	}
	return string(v.Data)
}
