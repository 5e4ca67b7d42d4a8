package readmodel

import (
	"cmp"
	"context"
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
		first, err := r.Result(ctx, g[0].resultID)
		if err != nil {
			return nil, 0, err
		}
		groups[i] = ResultGroup{
			Digest: g[0].digest, ResultID: g[0].resultID, State: first.State, ExitCode: first.ExitCode, Reason: first.Reason,
			Stdout: first.Stdout.Text, Stderr: first.Stderr.Text, Count: len(g),
		}
		for _, x := range g {
			if pcs := &groups[i].PCs; len(*pcs) < GroupPCs && !slices.Contains(*pcs, x.pcID) {
				*pcs = append(*pcs, x.pcID)
			}
		}
	}
	return groups, len(runs), nil
}

// alike puts runs of one digest together, by endpoint, the largest group first.
func alike(runs []groupedRun) [][]groupedRun {
	order := func(a, b groupedRun) int {
		return cmp.Or(cmp.Compare(a.pcID, b.pcID), cmp.Compare(a.resultID, b.resultID))
	}
	slices.SortFunc(runs, func(a, b groupedRun) int { return cmp.Or(cmp.Compare(a.digest, b.digest), order(a, b)) })
	var groups [][]groupedRun
	for from, i := 0, 1; i <= len(runs); i++ {
		if i == len(runs) || runs[i].digest != runs[from].digest {
			groups, from = append(groups, runs[from:i]), i
		}
	}
	slices.SortFunc(groups, func(a, b []groupedRun) int { return cmp.Or(cmp.Compare(len(b), len(a)), order(a[0], b[0])) })
	return groups
}
