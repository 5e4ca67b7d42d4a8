package rest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/libs/readmodel"
	"kanade/services/api/internal/domain"
)

// explanation is the answer of getExplanation.
type explanation struct {
	ExecID  string             `json:"exec_id"`
	PCID    string             `json:"pc_id"`
	State   events.TargetState `json:"state"`
	Reason  string             `json:"reason"`
	Summary string             `json:"summary"`
	Steps   []step             `json:"steps"`
}

type step struct {
	Sequence uint64  `json:"sequence"`
	At       instant `json:"at"`
	Fact     string  `json:"fact"`
	Text     string  `json:"text"`
}

// getExplanation says why an endpoint did, did not, or did not yet run. It answers for any endpoint: that one is not in
// the plan is an explanation, too; its state is then empty.
func (s *server) getExplanation(w http.ResponseWriter, r *http.Request, _ string) error {
	pcID, err := pathID(r, "pc_id")
	if err != nil {
		return err
	}
	e, err := s.execution(r)
	if err != nil {
		return err
	}
	c := domain.Case{ExecID: e.ExecID, PCID: pcID}
	t, err := s.Reader.Target(r.Context(), e.ExecID, pcID)
	if err != nil && !errors.Is(err, readmodel.ErrNotFound) {
		return err
	}
	c.Target = t.Target
	if c.Run, err = s.report(r.Context(), t.ResultID); err != nil {
		return err
	}
	// After the row: what it shows is among the facts then.
	if c.Facts, err = s.execFacts(r.Context(), e.ExecID); err != nil {
		return err
	}
	if e.Forgotten || c.Reduced() { // the read model forgets at once, the log says so the day after
		return domain.Refuse(domain.NotFound, "what endpoints did in execution '%s' has been forgotten: it is older than the history", e.ExecID)
	}
	c.Now = s.now(r.Context())
	if s.then.sequence == 0 { // of the past it is not known
		if c.Presence, err = s.presence(r.Context(), pcID, c.Now); err != nil {
			return err
		}
	}
	x := domain.Explain(c)
	answer := explanation{e.ExecID, pcID, x.Target.State, x.Reason, x.Summary, make([]step, len(x.Steps))}
	for i, p := range x.Steps {
		answer.Steps[i] = step{p.Sequence, instant(p.At), p.Fact, p.Text}
	}
	return writeJSON(w, answer)
}

// report is what an endpoint reported of a run; nil where it has none, or only has the command.
func (s *server) report(ctx context.Context, resultID string) (*domain.RunReport, error) {
	if resultID == "" {
		return nil, nil
	}
	x, err := s.Reader.Result(ctx, resultID)
	if errors.Is(err, readmodel.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &domain.RunReport{StartedAt: x.StartedAt, FinishedAt: x.FinishedAt, Detail: x.Detail, Seq: x.Sequence, At: x.RecordedAt}, nil
}

// explainTimeout bounds reading the facts of an exec. There are few of them, but for one that goes out in parts: a budget
// of one endpoint makes two facts for each, and 10 000 facts take about a quarter of a second.
const explainTimeout = 15 * time.Second

// execFacts reads an exec's own aggregate. What this version can't decode is left out.
func (s *server) execFacts(ctx context.Context, execID string) ([]domain.ExecFact, error) {
	if !s.Bus.Connected() {
		return nil, fmt.Errorf("read facts of exec %s: %w", execID, bus.ErrUnavailable)
	}
	ctx, cancel := context.WithTimeout(ctx, explainTimeout)
	defer cancel()
	stored, err := s.Bus.Load(ctx, events.AggregateExec, execID, 0)
	if err != nil {
		return nil, err
	}
	facts := make([]domain.ExecFact, 0, len(stored))
	for _, m := range stored {
		if s.then.sequence > 0 && m.Seq > s.then.sequence {
			break
		}
		if p, err := m.Payload(); err == nil {
			facts = append(facts, domain.ExecFact{Seq: m.Seq, At: m.StoredAt, Actor: m.Actor, Payload: p})
		}
	}
	return facts, nil
}
