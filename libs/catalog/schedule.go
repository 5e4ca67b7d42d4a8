package catalog

import "time"

// Schedule says when a job runs by itself. The order of the fields is the order in the stored document; fields marked
// omitzero are absent there when unset.
type Schedule struct {
	ID    string `json:"id" is:"required"`
	When  When   `json:"when" is:"required"`
	JobID string `json:"job_id" is:"required"`
	Plan
	Active      *Active      `json:"active,omitzero" is:"null"`
	Constraints *Constraints `json:"constraints,omitzero" is:"null"`
	OnFailure   *OnFailure   `json:"on_failure,omitzero" is:"null"`
	// TZ is the zone that at, window and bare dates are read in: local, utc or an IANA name ([Schedule.Location]).
	TZ string `json:"tz"`
	// StartingDeadline counts from the tick.
	StartingDeadline *Duration `json:"starting_deadline,omitzero" is:"null"`
	RunsOn           RunsOn    `json:"runs_on"`
	Enabled          bool      `json:"enabled"`
	// CatchUp says which ticks missed during an outage are fired; empty means last ([Schedule.CatchUpPolicy]).
	CatchUp CatchUp `json:"catch_up,omitzero" is:"null"`
	// CatchUpWindow is how far back a missed tick is still fired; unset means 1h.
	CatchUpWindow *Duration `json:"catch_up_window,omitzero" is:"null"`
	// Overlap says what a tick does while runs of an earlier one have not ended; empty means skip.
	Overlap Overlap `json:"overlap,omitzero" is:"null"`
	// Calendars are the names of blackout and allow calendars.
	Calendars []string `json:"calendars,omitzero" is:"null"`

	remembered *remembered // nil unless Remember was called
}

// RunsOn is who decides that the schedule is due.
type RunsOn string

// Who decides.
const (
	Backend RunsOn = "backend"
	Agent   RunsOn = "agent"
)

// CatchUp is what happens to ticks that fell into an outage.
type CatchUp string

// The policies: no missed tick is fired, the newest, or all.
const (
	CatchUpNone CatchUp = "none"
	CatchUpLast CatchUp = "last"
	CatchUpAll  CatchUp = "all"
)

// Overlap is what happens to a tick while an earlier one still runs.
type Overlap string

// The policies: the tick is skipped, waits, fires all the same, or ends the earlier one.
const (
	OverlapSkip    Overlap = "skip"
	OverlapQueue   Overlap = "queue"
	OverlapAllow   Overlap = "allow"
	OverlapReplace Overlap = "replace"
)

// When is the form of a schedule: exactly one field is set.
type When struct {
	PerPC     *Cadence  `json:"per_pc,omitzero"`
	PerTarget *Cadence  `json:"per_target,omitzero"`
	Calendar  *Calendar `json:"calendar,omitzero"`
	// Cron has 5 fields, or 6 with the seconds first.
	Cron string `json:"cron,omitzero"`
}

// Calendar is a time of day, on some days or all, or one date with a time.
type Calendar struct {
	// At is "HH:MM" (also "H:MM"), or "YYYY-MM-DD HH:MM" (also with T or slashes).
	At string `json:"at" is:"required"`
	// Days are one token an entry: mon..sun, 0-7, ascending ranges, tue#2, friL, or * alone; none means every day.
	Days []string `json:"days,omitzero" is:"null"`
}

// Cadence is "once", "once_per_version" or {every: duration}.
type Cadence struct {
	// Word is once or once_per_version; empty when Every counts.
	Word string
	// Every is the interval, from the nominal time of the last success.
	Every Duration
}

// Active bounds a schedule in time; each bound is RFC 3339 or YYYY-MM-DD (midnight in the schedule's zone), from
// inclusive, until exclusive.
type Active struct {
	From  string `json:"from,omitzero" is:"null"`
	Until string `json:"until,omitzero" is:"null"`
}

// Constraints are gates that hold a due schedule back.
type Constraints struct {
	// Window is "HH:MM-HH:MM", start inclusive, end exclusive; start > end crosses midnight.
	Window        string `json:"window,omitzero" is:"null"`
	MaxConcurrent *int   `json:"max_concurrent,omitzero" is:"null"`
	// SkipDates are YYYY-MM-DD.
	SkipDates []string `json:"skip_dates,omitzero" is:"null"`
}

// OnFailure says what follows a failed run. Its Retry is the plan's retry under the name that kanade 0.43.45 gives it; one
// of the two may be set ([Schedule.RetryPolicy]).
type OnFailure struct {
	Retry *Retry `json:"retry,omitzero" is:"null"`
}

func (RunsOn) words() []string  { return []string{"backend", "agent"} }
func (CatchUp) words() []string { return []string{"none", "last", "all"} }
func (Overlap) words() []string { return []string{"skip", "queue", "allow", "replace"} }

func (s *Schedule) defaults() {
	s.Plan.defaults()
	s.TZ, s.RunsOn, s.Enabled = "local", Backend, true
}

// CatchUpPolicy is CatchUp with its default, last.
func (s *Schedule) CatchUpPolicy() CatchUp {
	if s.CatchUp == "" {
		return CatchUpLast
	}
	return s.CatchUp
}

// CatchUpLimit is CatchUpWindow with its default, one hour: a missed tick older than this is not fired any more.
func (s *Schedule) CatchUpLimit() time.Duration {
	if s.CatchUpWindow == nil {
		return time.Hour
	}
	return s.CatchUpWindow.value()
}

// OverlapPolicy is Overlap with its default, skip.
func (s *Schedule) OverlapPolicy() Overlap {
	if s.Overlap == "" {
		return OverlapSkip
	}
	return s.Overlap
}

// RetryPolicy is the plan's Retry, or that of OnFailure; nil for one attempt.
func (s *Schedule) RetryPolicy() *Retry {
	if s.Retry == nil && s.OnFailure != nil {
		return s.OnFailure.Retry
	}
	return s.Retry
}
