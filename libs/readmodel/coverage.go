package readmodel

import (
	"context"
	"fmt"
	"strings"

	"kanade/libs/events"
)

// OpenRun is a command of a schedule that is out, or goes out yet, and has not been answered.
type OpenRun struct {
	PCID, ExecID string
	State        events.TargetState
}

// OpenRuns lists them of the executions of a schedule's ticks that have not expired, the newest execution of an endpoint
// last: not of those that operators asked for, which the schedule does not go by. The work is that of these executions'
// endpoints.
func (r *Reader) OpenRuns(ctx context.Context, scheduleID string) ([]OpenRun, error) {
	var open []string
	for _, s := range events.TargetStates() {
		if !s.Final() {
			open = append(open, fmt.Sprintf("'%s'", s))
		}
	}
	return list(ctx, r, func(scan func(...any) error) (o OpenRun, err error) { return o, scan(&o.PCID, &o.ExecID, &o.State) },
		`SELECT t.pc_id, t.exec_id, t.state FROM executions e INDEXED BY executions_schedule_live CROSS JOIN targets t ON t.exec_id = e.exec_id
		WHERE e.schedule_id = ? AND e.expired_at = 0 AND e.nominal_at <> 0 AND t.state IN (`+strings.Join(open, ", ")+`) ORDER BY e.initiated_at, e.exec_id`, scheduleID)
}

// LastFired is the newest tick of a schedule that made an exec; ErrNotFound. The work is that of the ticks since.
func (r *Reader) LastFired(ctx context.Context, scheduleID string) (Tick, error) {
	return one(ctx, r, scanTick, ticks.all()+" INDEXED BY ticks_fired WHERE schedule_id = ? AND exec_id <> '' ORDER BY sequence DESC LIMIT 1", scheduleID)
}

const coverageOrder order = "coverage"

// ByEndpoint is a page of rows that have been made out of several tables, one an endpoint, in the order of its id, and the
// cursor of the next page; ErrCursor.
func ByEndpoint[R any](rows []R, p Page, pcID func(*R) string) ([]R, string, error) {
	var after string
	if err := p.begin(coverageOrder, &after); err != nil {
		return nil, "", err
	}
	from := 0
	for from < len(rows) && after != "" && pcID(&rows[from]) <= after {
		from++
	}
	rows, next := cut(rows[from:], p, func(row *R) string { return coverageOrder.cursor(pcID(row)) })
	if p.Limit == 0 {
		rows = nil
	}
	return rows, next, nil
}
