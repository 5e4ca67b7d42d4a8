package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"kanade/libs/catalog"
	"kanade/libs/catalog/fanout"
	"kanade/libs/events"
	"kanade/libs/events/wire"
	"kanade/libs/readmodel"
	"kanade/services/api/internal/domain"
	"kanade/services/api/internal/journal"
)

// dryWave is a wave as a dry run tells it.
type dryWave struct {
	Wave      int      `json:"wave"`
	Label     string   `json:"label"`
	DueAt     instant  `json:"due_at"`
	After     bool     `json:"after"`
	DelaySecs uint64   `json:"delay_secs"`
	Pause     bool     `json:"pause"`
	Expected  []string `json:"expected"`
	Waiting   []string `json:"waiting"`
	// Subjects are where the wave's commands go, one message each.
	Subjects []string `json:"subjects"`
	// DeadlineAt is what its commands say of the last moment to start. Where neither plan nor run has a deadline, a wave
	// that goes out later than DueAt has a later one.
	DeadlineAt instant `json:"deadline_at"`
}

// dryCommand is what all commands say, in the wire's words, but for the ids of exec and request and the deadline of their
// wave; null where nothing goes out. A long script that goes to many endpoints travels as an object of the same bytes.
type dryCommand map[string]json.RawMessage

func dryCommandOf(c wire.Command) (dryCommand, error) {
	c.DeadlineAt = nil
	text, err := c.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("encode command: %w", err)
	}
	var d dryCommand
	if err := json.Unmarshal(text, &d); err != nil {
		return nil, fmt.Errorf("encode command: %w", err)
	}
	delete(d, "exec_id")
	delete(d, "request_id")
	return d, nil
}

// dryRun answers what an exec would do if it were requested now, by the same decisions as the scheduler's, over the read
// model's view of the fleet, which gets a moment to see what the log has. Nothing is written.
func (s *server) dryRun(w http.ResponseWriter, r *http.Request, c journal.Caller, jobID string, plan *catalog.Plan) error {
	e, at, err := s.journal.DraftExec(r.Context(), c, jobID, plan)
	if err != nil {
		return err
	}
	// A read model that lags for longer answers all the same: the headers say how far it is.
	waiting, cancel := context.WithTimeout(r.Context(), lookBefore)
	defer cancel()
	if err := s.caughtUp(waiting); err != nil && !errors.Is(err, readmodel.ErrBehind) {
		return err
	}
	planned, err := s.planned(r.Context(), e, plan, at)
	if err != nil {
		return err
	}
	if err := domain.RequireTargets(plan, planned); err != nil {
		return err
	}
	revoked, err := s.journal.Revoked(r.Context(), jobID)
	if err != nil {
		return err
	}
	answer := dryAnswer{
		DryRun: true, JobID: e.JobID, Version: e.Version, TargetCount: domain.Asked(planned), Revoked: revoked,
		Waves: []dryWave{}, Skipped: []dryLeftOut{}, DeadlineAt: instant(planned.DeadlineAt), ExpiresAt: instant(planned.ExpiresAt),
		MaxFailures: planned.MaxFailures, MaxParallel: planned.MaxParallel,
	}
	for i, x := range planned.Waves {
		commands := fanout.CommandsOf(e, plan, planned, events.WaveReleased{ExecID: e.ExecID, Wave: i})
		wave := dryWave{
			Wave: i, Label: x.Label, DueAt: instant(x.DueAt), After: x.After, DelaySecs: x.DelaySecs, Pause: x.Pause,
			Expected: some(x.Expected), Waiting: some(x.Waiting), Subjects: []string{}, DeadlineAt: instant(*commands.Body.DeadlineAt),
		}
		for k := range commands.Len() {
			wave.Subjects = append(wave.Subjects, commands.At(k).Subject)
		}
		answer.Waves = append(answer.Waves, wave)
		if answer.Command == nil {
			if answer.Command, err = dryCommandOf(commands.Body); err != nil {
				return err
			}
		}
	}
	for _, x := range planned.Skipped {
		answer.Skipped = append(answer.Skipped, dryLeftOut{x.PCID, x.Reason})
	}
	return writeJSON(w, answer)
}

// dryAnswer is what an exec would do.
type dryAnswer struct {
	DryRun  bool   `json:"dry_run"`
	JobID   string `json:"job_id"`
	Version string `json:"version"`
	// TargetCount is what the exec would be answered: those that are left out are counted.
	TargetCount int `json:"target_count"`
	// Revoked: the commands would go out, and every endpoint would skip them.
	Revoked     bool         `json:"revoked"`
	Command     dryCommand   `json:"command"`
	Waves       []dryWave    `json:"waves"`
	Skipped     []dryLeftOut `json:"skipped"`
	DeadlineAt  instant      `json:"deadline_at"`
	ExpiresAt   instant      `json:"expires_at"`
	MaxFailures *int         `json:"max_failures"`
	MaxParallel *int         `json:"max_parallel"`
}

// dryLeftOut is an endpoint that the plan leaves out.
type dryLeftOut struct {
	PCID   string `json:"pc_id"`
	Reason string `json:"reason"`
}

// planned is the plan of an exec over the fleet as the read model knows it.
func (s *server) planned(ctx context.Context, e events.ExecRequested, plan *catalog.Plan, at time.Time) (events.ExecPlanned, error) {
	view, err := readFleet(ctx, s.Reader)
	if err != nil {
		return events.ExecPlanned{}, err
	}
	return fanout.Within(fanout.Plan(e, plan, view, at), at, s.History), nil
}

// some is a list that is [] when empty.
func some(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
