package readmodel

import (
	"cmp"
	"context"
	"maps"
	"math"
	"slices"
	"time"

	"kanade/libs/events"
)

// ResultGroup is runs that ended in the same way: the same state, exit code, reason and outputs, as far as the log carries
// them, and of outputs that were cut the same digest of the whole.
type ResultGroup struct {
	// Digest is what they have in common as Result.Digest says it, ResultID one of them.
	Digest, ResultID string
	State            events.TargetState
	ExitCode         *int
	Reason           string
	Stdout, Stderr   string
	// Count is how many runs they are, PCs the first of their endpoints by id, at most GroupPCs.
	Count int
	PCs   []string
}

// GroupPCs is how many endpoints a ResultGroup names.
const GroupPCs = 10

// maxGrouped bounds how many runs are grouped at once, which takes about half a second.
const maxGrouped = 100_000

// GroupFilter says which runs are grouped: those of an exec or, where it is empty, of a job.
type GroupFilter struct {
	ExecID, JobID string
	Status        ResultStatus
	// Since is the earliest StartedAt.
	Since time.Time
	// Limit is how many groups at most; All: no limit, 0: none.
	Limit int
}

// groupedRun is what a group is made of.
type groupedRun struct{ digest, resultID, pcID string }

// ResultGroups lists groups of runs that have ended, the largest first, and tells how many runs were grouped: all of
// them, but no more than the 100 000 that started last. Outputs are read once a group.
func (r *Reader) ResultGroups(ctx context.Context, f GroupFilter) (groups []ResultGroup, grouped int, err error) {
	column, id := "exec_id", f.ExecID
	if f.ExecID == "" {
		column, id = "job_id", f.JobID
	}
	query := "SELECT digest, result_id, pc_id FROM results INDEXED BY results_" + column[:len(column)-len("_id")] +
		" WHERE " + column + " = ? AND started_at >= ? AND " + resultEnded + f.Status.where() + " ORDER BY started_at DESC, result_id DESC LIMIT ?"
	since := int64(math.MinInt64)
	if !f.Since.IsZero() {
		since = toNanos(f.Since)
	}
	runs, err := list(ctx, r, func(scan func(...any) error) (x groupedRun, err error) {
		return x, scan(&x.digest, &x.resultID, &x.pcID)
	}, query, id, since, maxGrouped)
	if err != nil {
		return nil, 0, err
	}
	ordered := alike(runs)
	if f.Limit >= 0 {
		ordered = ordered[:min(f.Limit, len(ordered))]
	}
	groups = make([]ResultGroup, len(ordered))
	for i, g := range ordered {
		x, err := r.Result(ctx, g.first.resultID)
		if err != nil {
			return nil, 0, err
		}
		slices.Sort(g.pcs)
		pcs := slices.Compact(g.pcs)
		groups[i] = ResultGroup{
			Digest: g.first.digest, ResultID: g.first.resultID, State: x.State, ExitCode: x.ExitCode, Reason: x.Reason,
			Stdout: x.Stdout.Text, Stderr: x.Stderr.Text, Count: g.count, PCs: slices.Clone(pcs[:min(GroupPCs, len(pcs))]),
		}
	}
	return groups, len(runs), nil
}

// likeRuns is runs of one digest; first is that of the first endpoint by id.
type likeRuns struct {
	first groupedRun
	count int
	pcs   []string
}

// alike puts runs of one digest together, the largest group first.
func alike(runs []groupedRun) []*likeRuns {
	order := func(a, b groupedRun) int {
		return cmp.Or(cmp.Compare(a.pcID, b.pcID), cmp.Compare(a.resultID, b.resultID))
	}
	groups := map[string]*likeRuns{}
	for _, x := range runs {
		g := groups[x.digest]
		if g == nil {
			g = &likeRuns{first: x}
			groups[x.digest] = g
		}
		if order(x, g.first) < 0 {
			g.first = x
		}
		g.count, g.pcs = g.count+1, append(g.pcs, x.pcID)
	}
	return slices.SortedFunc(maps.Values(groups), func(a, b *likeRuns) int {
		return cmp.Or(cmp.Compare(b.count, a.count), order(a.first, b.first))
	})
}
