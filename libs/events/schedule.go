package events

import "time"

// ScheduleSaved stores a schedule.
type ScheduleSaved struct {
	ID      string `json:"id"`
	JobID   string `json:"job_id"`
	Enabled bool   `json:"enabled"`
	// Switched: somebody switched it on or off (Enabled says which) and sent no document.
	Switched bool `json:"switched,omitempty"`
	DocumentRevision
}

func (ScheduleSaved) EventType() string     { return "kanade.schedule.saved.v1" }
func (p ScheduleSaved) AggregateID() string { return p.ID }

// ScheduleDeleted removes a schedule.
type ScheduleDeleted struct {
	ID string `json:"id"`
}

func (ScheduleDeleted) EventType() string     { return "kanade.schedule.deleted.v1" }
func (p ScheduleDeleted) AggregateID() string { return p.ID }

// TickOutcome is how a nominal tick ended.
type TickOutcome string

// How a tick ends. TickCaughtUp is a fire after its time, within the catch-up window.
const (
	TickFired    TickOutcome = "fired"
	TickCaughtUp TickOutcome = "caught_up"
	TickSkipped  TickOutcome = "skipped"
	TickMissed   TickOutcome = "missed"
)

// Reasons of a skipped or missed tick.
const (
	TickReasonOverlap    = "overlap"
	TickReasonDisabled   = "disabled"
	TickReasonJobGone    = "job_gone"
	TickReasonNoTarget   = "no_target"
	TickReasonLate       = "late"
	TickReasonSuperseded = "superseded"
	// The fleet is frozen. The job can't be run as the schedule asks: its inputs, or a key that is not carried out. The job's
	// script object is not there.
	TickReasonFrozen       = "frozen"
	TickReasonJobUnfit     = "job_unfit"
	TickReasonScriptObject = "script_object"
	// The gates of the schedule: its window, its skip dates, a named calendar. Limit: as many of its runs are open as may be.
	TickReasonWindow   = "outside_window"
	TickReasonSkipDate = "skip_date"
	TickReasonCalendar = "calendar"
	TickReasonLimit    = "limit"
)

// ScheduleTicked is one nominal tick, or a run of consecutive ones with the same outcome and no exec.
type ScheduleTicked struct {
	ID string `json:"id"`
	// ScheduleSequence is the LOG sequence of the ScheduleSaved that made the tick.
	ScheduleSequence uint64      `json:"schedule_sequence"`
	Outcome          TickOutcome `json:"outcome"`
	Reason           string      `json:"reason,omitempty"`
	// From and To are nominal times; they are equal unless Count is more than one.
	From  time.Time `json:"from"`
	To    time.Time `json:"to"`
	Count int       `json:"count"`
	// Exec is the whole request of a tick that fired or was caught up. ExecRequested is copied from it.
	Exec *ExecRequested `json:"exec,omitempty"`
}

func (ScheduleTicked) EventType() string     { return "kanade.schedule.ticked.v1" }
func (p ScheduleTicked) AggregateID() string { return p.ID }

// FireID is the exec of a schedule's nominal tick: the same whoever fires it, and however often.
func FireID(scheduleID string, nominal time.Time) string {
	return DeriveID(scheduleID, "fire", nominal.UTC().Format(time.RFC3339Nano))
}

// Progress is what a schedule remembers of one endpoint, or with an empty PCID of its whole target.
type Progress struct {
	PCID string `json:"pc_id"`
	// ExecID is the endpoint's open run by this schedule; empty when none is open.
	ExecID string `json:"exec_id,omitempty"`
	// Fired is the nominal time of its last fire.
	Fired *time.Time `json:"fired,omitempty"`
	// Succeeded is the nominal time of its last fire that succeeded.
	Succeeded *time.Time `json:"succeeded,omitempty"`
	// Version is the job's version that succeeded then.
	Version string `json:"version,omitempty"`
	// Failures counts the fires since then that did not succeed.
	Failures int `json:"failures,omitempty"`
	// NotBefore is when it may be fired again after a failure.
	NotBefore *time.Time `json:"not_before,omitempty"`
}

// ScheduleProgressed is a batch of changes; later ones replace earlier ones endpoint by endpoint.
type ScheduleProgressed struct {
	ID      string     `json:"id"`
	Changes []Progress `json:"changes"`
}

func (ScheduleProgressed) EventType() string     { return "kanade.schedule.progressed.v1" }
func (p ScheduleProgressed) AggregateID() string { return p.ID }

var (
	sampleTime            = time.Date(2026, 11, 23, 2, 30, 0, 0, time.UTC)
	sampleScheduleSaved   = ScheduleSaved{ID: "nightly", JobID: "hello", Enabled: true, Switched: true, DocumentRevision: sampleDocument}
	sampleScheduleDeleted = ScheduleDeleted{ID: "nightly"}
	sampleScheduleTicked  = ScheduleTicked{
		ID: "nightly", ScheduleSequence: 12, Outcome: TickCaughtUp, Reason: TickReasonLate, From: sampleTime, To: sampleTime, Count: 1, Exec: &sampleExecRequested,
	}
	sampleScheduleProgressed = ScheduleProgressed{ID: "nightly", Changes: []Progress{{
		PCID: "pc-01", ExecID: "ed70b3bc-5ac5-4c70-a90d-b319c4557e8e", Fired: &sampleTime, Succeeded: &sampleTime, Version: "1.0.0", Failures: 1, NotBefore: &sampleTime,
	}}}
)
