package rest

import (
	"context"
	"net/http"
	"time"

	"kanade/libs/catalog"
	"kanade/libs/catalog/fanout"
	"kanade/libs/events"
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
}

// dryRun answers what an exec would do if it were requested now, by the same decisions as the scheduler's, over the read
// model's view of the fleet. Nothing is written.
func (s *server) dryRun(w http.ResponseWriter, r *http.Request, c journal.Caller, jobID string, plan *catalog.Plan) error {
	e, at, err := s.journal.DraftExec(r.Context(), c, jobID, plan)
	if err != nil {
		return err
	}
	planned, err := s.planned(r.Context(), e, plan, at)
	if err != nil {
		return err
	}
	if err := domain.RequireTargets(plan, planned); err != nil {
		return err
	}
	type skipped struct {
		PCID   string `json:"pc_id"`
		Reason string `json:"reason"`
	}
	answer := struct {
		DryRun      bool      `json:"dry_run"`
		JobID       string    `json:"job_id"`
		Version     string    `json:"version"`
		TargetCount int       `json:"target_count"`
		Waves       []dryWave `json:"waves"`
		Skipped     []skipped `json:"skipped"`
		DeadlineAt  instant   `json:"deadline_at"`
		ExpiresAt   instant   `json:"expires_at"`
		MaxFailures *int      `json:"max_failures"`
		MaxParallel *int      `json:"max_parallel"`
	}{
		DryRun: true, JobID: e.JobID, Version: e.Version, TargetCount: domain.Asked(planned), Waves: []dryWave{}, Skipped: []skipped{},
		DeadlineAt: instant(planned.DeadlineAt), ExpiresAt: instant(planned.ExpiresAt),
		MaxFailures: planned.MaxFailures, MaxParallel: planned.MaxParallel,
	}
	for i, x := range planned.Waves {
		wave := dryWave{
			Wave: i, Label: x.Label, DueAt: instant(x.DueAt), After: x.After, DelaySecs: x.DelaySecs, Pause: x.Pause,
			Expected: some(x.Expected), Waiting: some(x.Waiting), Subjects: []string{},
		}
		commands := fanout.CommandsOf(e, plan, planned, events.WaveReleased{ExecID: e.ExecID, Wave: i})
		for k := range commands.Len() {
			wave.Subjects = append(wave.Subjects, commands.At(k).Subject)
		}
		answer.Waves = append(answer.Waves, wave)
	}
	for _, x := range planned.Skipped {
		answer.Skipped = append(answer.Skipped, skipped{x.PCID, x.Reason})
	}
	return writeJSON(w, answer)
}

// planned is the plan of an exec over the fleet as the read model knows it.
func (s *server) planned(ctx context.Context, e events.ExecRequested, plan *catalog.Plan, at time.Time) (events.ExecPlanned, error) {
	view, err := readFleet(ctx, s.Reader)
	if err != nil {
		return events.ExecPlanned{}, err
	}
	return fanout.Plan(e, plan, view, at), nil
}

// some is a list that is [] when empty.
func some(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
