package rest

import (
	"context"
	"net/http"

	"kanade/libs/events"
	"kanade/libs/readmodel"
	"kanade/services/api/internal/domain"
)

// retryExecution asks for endpoints of an exec to be tried again.
func (s *server) retryExecution(w http.ResponseWriter, r *http.Request, route string) error {
	var sent struct {
		States []events.TargetState `json:"states"`
		Reason string               `json:"reason"`
		Pinned bool                 `json:"pinned"`
	}
	id, c, err := readIntent(w, r, route, &sent)
	if err == nil {
		err = checkReason(sent.Reason)
	}
	if err != nil {
		return err
	}
	retry := domain.Retry{States: sent.States, Reason: sent.Reason, Pinned: sent.Pinned}
	if err := retry.Check(); err != nil {
		return err
	}
	e, seq, err := s.journal.RetryExec(r.Context(), c, id, retry, func(ctx context.Context, sequence uint64) ([]string, error) {
		return s.retried(ctx, id, retry, sequence)
	})
	if err != nil {
		return err
	}
	return answerStored(w, e, seq)
}

// retried lists the endpoints that are tried again, as of at least a sequence.
func (s *server) retried(ctx context.Context, execID string, retry domain.Retry, sequence uint64) ([]string, error) {
	if err := s.appliedTo(ctx, sequence); err != nil {
		return nil, err
	}
	e, err := s.Reader.Execution(ctx, execID)
	if err != nil {
		return nil, err
	}
	if e.Forgotten {
		return nil, domain.Forgotten(execID)
	}
	rows, _, err := s.Reader.Targets(ctx, readmodel.TargetFilter{ExecID: execID, Page: readmodel.Page{Limit: readmodel.All}})
	if err != nil {
		return nil, err
	}
	var pcs []string
	for i := range rows {
		if retry.Takes(rows[i].Target) {
			pcs = append(pcs, rows[i].PCID)
		}
	}
	return pcs, nil
}
