package readmodel

import (
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"slices"

	"kanade/libs/events"
)

// Failure is a group of runs of one exec that failed in the same way: the same state, exit code, reason and output.
// Failed, timed out, killed and unknown runs are failures.
type Failure struct {
	State    events.TargetState
	ExitCode *int
	Reason   string
	// Stdout and Stderr are the output of each of them, as far as the log carries it.
	Stdout, Stderr string
	// Count is how many runs they are, PCs the first of their endpoints by id, at most FailurePCs.
	Count int
	PCs   []string
}

// FailurePCs is how many endpoints a Failure names.
const FailurePCs = 10

// failedRun is one run, with a digest of what it has in common with others.
type failedRun struct {
	resultID, pcID string
	digest         [sha256.Size]byte
}

// Failures lists at most limit groups (All: no limit), the largest first. It reads the output of every failed run of the
// exec once and keeps only that of the groups it gives.
func (r *Reader) Failures(ctx context.Context, execID string, limit int) ([]Failure, error) {
	const query = `SELECT result_id, pc_id, state, exit_code, reason, stdout, stderr FROM results
		WHERE exec_id = ? AND state IN ('failed', 'timed_out', 'killed', 'unknown')`
	runs, err := list(ctx, r, scanFailedRun, query, execID)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(runs, func(a, b failedRun) int {
		return cmp.Or(cmp.Compare(a.pcID, b.pcID), cmp.Compare(a.resultID, b.resultID))
	})
	groups := map[[sha256.Size]byte][]failedRun{}
	for _, x := range runs {
		groups[x.digest] = append(groups[x.digest], x)
	}
	ordered := slices.SortedFunc(func(yield func([]failedRun) bool) {
		for _, g := range groups {
			if !yield(g) {
				return
			}
		}
	}, func(a, b []failedRun) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a[0].pcID, b[0].pcID), cmp.Compare(a[0].resultID, b[0].resultID))
	})
	if limit >= 0 {
		ordered = ordered[:min(limit, len(ordered))]
	}
	failures := make([]Failure, len(ordered))
	for i, g := range ordered {
		first, err := r.Result(ctx, g[0].resultID)
		if err != nil {
			return nil, err
		}
		failures[i] = Failure{
			State: first.State, ExitCode: first.ExitCode, Reason: first.Reason, Stdout: first.Stdout.Text, Stderr: first.Stderr.Text, Count: len(g),
		}
		for _, x := range g[:min(FailurePCs, len(g))] {
			failures[i].PCs = append(failures[i].PCs, x.pcID)
		}
	}
	return failures, nil
}

func scanFailedRun(scan func(...any) error) (x failedRun, err error) {
	var state, reason, stdout, stderr sql.RawBytes
	var code *int
	if err := scan(&x.resultID, &x.pcID, &state, &code, &reason, &stdout, &stderr); err != nil {
		return x, err
	}
	h := sha256.New()
	if code != nil {
		fmt.Fprintf(h, "%d", *code)
	}
	for _, field := range [][]byte{state, reason, stdout, stderr} {
		fmt.Fprintf(h, " %d ", len(field))
		h.Write(field)
	}
	h.Sum(x.digest[:0])
	return x, nil
}
