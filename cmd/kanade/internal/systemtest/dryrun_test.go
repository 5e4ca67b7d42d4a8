package systemtest

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

// A dry run names the endpoints, waves, times and commands that the exec then has, whatever the plan.
func TestDryRunIsWhatTheExecDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTheatre(t, 1, 6)
		w.startAPI()
		settle(time.Second)
		w.cut("pc-05")
		settle(3 * time.Minute) // it is away, and known to be
		w.write("POST", "/api/jobs", "id: job\nversion: 1.0.0\nexecute: {shell: sh, timeout: 30s, script: play}\n", "Content-Type", "application/yaml")
		r := rand.New(rand.NewPCG(5, 5))
		for i := range 25 {
			plan := w.waves(r)
			if i%5 == 0 {
				plan.Rollout = nil
			}
			body, err := plan.Document()
			require.NoError(t, err)
			var dry struct {
				Waves []struct {
					Label             string    `json:"label"`
					DueAt             time.Time `json:"due_at"`
					After             bool      `json:"after"`
					DelaySecs         uint64    `json:"delay_secs"`
					Pause             bool      `json:"pause"`
					Expected, Waiting []string
					Subjects          []string `json:"subjects"`
				} `json:"waves"`
				Skipped    []events.SkippedPC `json:"skipped"`
				ExpiresAt  time.Time          `json:"expires_at"`
				DeadlineAt time.Time          `json:"deadline_at"`
			}
			before, err := w.operator.LastSeq(t.Context(), events.StreamLog)
			require.NoError(t, err)
			text, _, err := w.try("POST", "/api/exec/job?dry_run=true", string(body))
			require.NoError(t, err)
			require.NoError(t, json.Unmarshal(text, &dry), "%s", text)
			after, err := w.operator.LastSeq(t.Context(), events.StreamLog)
			require.NoError(t, err)
			require.Equal(t, before, after, "a dry run writes nothing")
			asked := time.Now()
			var answer struct {
				ExecID string `json:"exec_id"`
			}
			require.NoError(t, json.Unmarshal(w.write("POST", "/api/exec/job", string(body)), &answer))
			settle(500 * time.Millisecond)
			x := w.truths()[answer.ExecID]
			late := x.plannedAt.Sub(asked).Round(time.Millisecond)
			require.Len(t, x.planned.Waves, len(dry.Waves))
			for n, wave := range x.planned.Waves {
				d := dry.Waves[n]
				require.Equal(t, []any{wave.Label, wave.After, wave.DelaySecs, wave.Pause}, []any{d.Label, d.After, d.DelaySecs, d.Pause})
				require.ElementsMatch(t, wave.Expected, d.Expected)
				require.ElementsMatch(t, wave.Waiting, d.Waiting)
				require.WithinDuration(t, wave.DueAt.Add(-late), d.DueAt, time.Second)
				subjects := x.planned.Subjects
				if len(subjects) == 0 {
					for _, pc := range slices.Concat(wave.Expected, wave.Waiting) {
						subjects = append(subjects, "commands.pc."+pc)
					}
				}
				require.ElementsMatch(t, subjects, d.Subjects, strings.Join(d.Subjects, " "))
			}
			require.ElementsMatch(t, x.planned.Skipped, dry.Skipped)
			require.WithinDuration(t, x.planned.ExpiresAt, dry.ExpiresAt, time.Second)
		}
	})
}
