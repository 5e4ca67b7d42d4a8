package domain_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/services/api/internal/domain"
)

func TestRetryOfDead(t *testing.T) {
	for subject, want := range map[[2]string]domain.Code{
		{"LOG", "events.run.pc-01.finished"}:    0,
		{"LOG", "events.started.e1.pc-01"}:      0,
		{"LOG", "results.7"}:                    0,
		{"LOG", "events.runner.pc-01.finished"}: domain.Conflict,
		{"LOG", "events.exec.e1.requested"}:     domain.Conflict,
		{"LOG", "events.agent.pc-01.seen"}:      domain.Conflict,
		{"LOG", "audit.job_create.hello"}:       domain.Conflict,
		{"TIMERS", "timers.due.tick.s1.1"}:      domain.Unprocessable,
		{"PRESENCE", "heartbeat.pc-01"}:         domain.Unprocessable,
		{"KV_agent_groups", "events.run.a.b"}:   domain.Unprocessable,
		{"", ""}:                                domain.Unprocessable,
	} {
		err := domain.Dead{Seq: 7, Stream: subject[0], Subject: subject[1]}.Retry()
		var refused *domain.Refusal
		if !errors.As(err, &refused) {
			require.NoError(t, err)
			refused = &domain.Refusal{}
		}
		require.Equal(t, want, refused.Code, subject)
	}
}
