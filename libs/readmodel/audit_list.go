package readmodel

import (
	"context"
	"math"
	"regexp"
	"time"
)

// AuditFilter narrows the list of acts; empty fields match all.
type AuditFilter struct {
	// Actor and Sub are the record's.
	Actor, Sub string
	// Regular expressions that find something anywhere in the field; nil: all. An action or target that is anchored at both
	// ends and has no choice in between is looked up.
	Action, Target, Payload *regexp.Regexp
	// Since is the earliest OccurredAt, Until the first one that is too late.
	Since, Until time.Time
	Page
}

const auditOrder order = "audit"

// Audit lists what operators did, the last first, and gives the cursor of the next page; ErrCursor. All acts are searched,
// however old, page by page: a page may be short, or empty, and still not be the last.
func (r *Reader) Audit(ctx context.Context, f AuditFilter) (page []AuditRecord, next string, err error) {
	at, id := int64(maxNanos), int64(math.MaxInt64) // the place of the last row that was looked at
	if err := f.begin(auditOrder, &at, &id); err != nil {
		return nil, "", err
	}
	if until := toNanos(f.Until); !f.Until.IsZero() && until <= at {
		at, id = until, math.MinInt64
	}
	w := f.walk()
	page = []AuditRecord{}
	for looked, given := 0, 0; f.Limit != 0; {
		size := resultStep
		if f.Limit > 0 && !w.matching() {
			size = min(size, f.Limit-len(page)+1)
		}
		rows, err := list(ctx, r, scanAudit, w.query, append([]any{at, id}, append(w.args, size)...)...)
		if err != nil {
			return nil, "", err
		}
		for i := range rows {
			if !w.matches(&rows[i]) {
				continue
			}
			if f.Limit > 0 && (len(page) == f.Limit || given > maxGiven) {
				return page, page[len(page)-1].cursor(), nil
			}
			page, given = append(page, rows[i]), given+len(rows[i].Payload)+len(rows[i].Target)
		}
		if len(rows) < size {
			break
		}
		last := &rows[len(rows)-1]
		at, id = last.place()
		if looked += len(rows); f.Limit > 0 && looked >= maxLooked {
			return page, last.cursor(), nil
		}
	}
	return page, "", nil
}

func (a *AuditRecord) place() (at, id int64) { return toNanos(a.OccurredAt), int64(a.Sequence) }

func (a *AuditRecord) cursor() string {
	at, id := a.place()
	return auditOrder.cursor(at, id)
}

func scanAudit(scan func(...any) error) (a AuditRecord, err error) { return a, scan(a.fields()...) }

// auditWalk goes through the acts of a filter in the order of the list.
type auditWalk struct {
	// query takes the place to begin behind, args, and how many rows.
	query string
	args  []any
	// Expressions that are matched row by row; nil: none.
	action, target, payload *regexp.Regexp
}

// walk looks for what leads through fewest rows: of one target there are fewer than of one person or one action.
func (f *AuditFilter) walk() auditWalk {
	w := auditWalk{payload: f.Payload, args: []any{}}
	index, where := "audit_occurred", ""
	equals := func(column, text string) {
		index, where, w.args = "audit_"+column, where+" AND "+column+" = ?", append(w.args, text)
	}
	if f.Actor != "" {
		equals("actor", f.Actor)
	}
	if text, ok := exact(f.Action); ok {
		equals("action", text)
	} else {
		w.action = f.Action
	}
	if f.Sub != "" {
		equals("sub", f.Sub)
	}
	if text, ok := exact(f.Target); ok {
		equals("target", text)
	} else {
		w.target = f.Target
	}
	if !f.Since.IsZero() {
		where, w.args = where+" AND occurred_at >= ?", append(w.args, toNanos(f.Since))
	}
	w.query = audits.all() + " INDEXED BY " + index + " WHERE (occurred_at, sequence) < (?, ?)" + where +
		" ORDER BY occurred_at DESC, sequence DESC LIMIT ?"
	return w
}

func (w *auditWalk) matching() bool { return w.action != nil || w.target != nil || w.payload != nil }

func (w *auditWalk) matches(a *AuditRecord) bool {
	return (w.action == nil || w.action.MatchString(a.Action)) && (w.target == nil || w.target.MatchString(a.Target)) &&
		(w.payload == nil || w.payload.MatchString(a.Payload))
}
