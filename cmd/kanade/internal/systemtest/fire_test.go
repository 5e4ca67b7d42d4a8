package systemtest

import (
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

// An operator makes up for an outage while the scheduler is still away: when that comes back it catches up, under the same
// ids, and no endpoint runs anything twice. What he fires by hand runs where he says, whatever the freeze and the schedule's
// being disabled hold back.
func TestBackfillMeetsCatchingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(20*time.Minute + 10*time.Second)
		w := newTheatre(t, 1, 3)
		w.failing = 0
		w.open()
		w.write("POST", "/api/schedules", "id: hourly\njob_id: job\nwhen: {cron: \"0 * * * *\"}\ntz: utc\ntarget: {all: true}\ncatch_up: all\ncatch_up_window: 24h\noverlap: allow\n",
			"Content-Type", "application/yaml")
		settle(2 * time.Hour)
		require.Len(t, w.ledger("hourly"), 2)
		w.cut("scheduler-a")
		from := time.Now().UTC().Truncate(time.Second)
		settle(5 * time.Hour)
		require.Len(t, w.ledger("hourly"), 2, "nobody is there")
		require.Equal(t, from.Truncate(time.Hour).Add(time.Hour), w.overdue("hourly"))

		body := fmt.Sprintf(`{"from":%q,"to":%q,"reason":"outage"}`, from.Format(time.RFC3339), time.Now().UTC().Truncate(time.Second).Format(time.RFC3339))
		var filled struct{ Requested, Known int }
		require.NoError(t, json.Unmarshal(w.write("POST", "/api/schedules/hourly/backfill", body), &filled))
		require.Equal(t, 5, filled.Requested)
		settle(time.Minute)
		require.Len(t, w.starts.runs, 2*3, "it is the scheduler that sends commands")
		w.startScheduler("scheduler-a")
		settle(5 * time.Minute)

		require.Zero(t, w.overdue("hourly"))
		rows := w.ledger("hourly")
		require.Len(t, rows, 7)
		outcomes := map[string]int{}
		for _, row := range rows {
			outcomes[row.Outcome]++
			require.Equal(t, events.FireID("hourly", row.Nominal), row.ExecID, "%s %s", row.Outcome, row.Nominal)
			for _, pc := range w.pcs {
				require.Equal(t, 1, w.starts.runs[row.ExecID+" "+pc], "%s %s on %s", row.Outcome, row.Nominal, pc)
			}
		}
		require.Equal(t, map[string]int{"fired": 2, "caught_up": 5}, outcomes)
		require.Len(t, w.starts.runs, 7*3)
		require.NoError(t, json.Unmarshal(w.write("POST", "/api/schedules/hourly/backfill", body), &filled))
		require.Equal(t, []int{0, 5}, []int{filled.Requested, filled.Known})

		w.write("POST", "/api/schedules/hourly/disable", "")
		w.write("PUT", "/api/freeze", "{}")
		var now struct {
			ExecID string `json:"exec_id"`
		}
		require.NoError(t, json.Unmarshal(w.write("POST", "/api/schedules/hourly/run-now", `{"pcs":["pc-01"]}`), &now))
		settle(2 * time.Hour)
		require.Equal(t, 1, w.starts.runs[now.ExecID+" pc-01"])
		require.Len(t, w.starts.runs, 7*3+1, "the schedule itself fires no more")
	})
}

// overdue is the nominal time of which the api says that nobody has decided what becomes of it.
func (w *theatre) overdue(id string) time.Time {
	w.t.Helper()
	var status struct{ Overdue time.Time }
	w.read("/api/schedules/"+id+"/status", &status)
	return status.Overdue
}

type tickRow struct {
	Outcome string
	Nominal time.Time
	ExecID  string `json:"exec_id"`
}

// ledger is what the api says of a schedule's ticks that have fired.
func (w *theatre) ledger(id string) (fired []tickRow) {
	w.t.Helper()
	var all []tickRow
	w.read("/api/schedules/"+id+"/ticks", &all)
	for _, row := range all {
		if row.ExecID != "" {
			fired = append(fired, row)
		}
	}
	return fired
}
