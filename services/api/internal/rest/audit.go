package rest

import (
	"context"
	"encoding/json"
	"net/http"

	"kanade/libs/readmodel"
)

// auditRecord is one act as answered; from sub on it is ours. The id is its LOG sequence.
type auditRecord struct {
	ID         uint64          `json:"id"`
	Actor      string          `json:"actor"`
	Action     string          `json:"action"`
	Target     string          `json:"target"`
	Payload    json.RawMessage `json:"payload"`
	OccurredAt instant         `json:"occurred_at"`

	Sub        string  `json:"sub"`
	Type       string  `json:"type"`
	EventID    string  `json:"event_id"`
	Sequence   uint64  `json:"sequence"`
	RecordedAt instant `json:"recorded_at"`
}

// listAudit answers what operators did, the last first.
func (s *server) listAudit(w http.ResponseWriter, r *http.Request, _ string) error {
	q := queryOf(r)
	filter := readmodel.AuditFilter{
		Actor: q.text("actor"), Sub: q.text("sub"), Action: q.regex("action"), Target: q.regex("target"), Payload: q.regex("payload"),
		Since: q.time("since"), Until: q.time("until"),
	}
	l := q.list(r, defaultLimit)
	if q.err != nil {
		return q.err
	}
	return writeList(w, r, l, sheetOf[auditRecord]("audit"), func(ctx context.Context, p readmodel.Page) ([]auditRecord, string, error) {
		filter.Page = p
		rows, next, err := s.Reader.Audit(ctx, filter)
		return rowsOf(rows, next, err, auditRecordOf)
	})
}

func auditRecordOf(a *readmodel.AuditRecord) auditRecord {
	return auditRecord{
		a.Sequence, a.Actor, a.Action, a.Target, json.RawMessage(a.Payload), instant(a.OccurredAt),
		a.Sub, a.Type, a.EventID, a.Sequence, instant(a.RecordedAt),
	}
}
