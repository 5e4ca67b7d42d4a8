package domain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"kanade/libs/catalog"
	"kanade/libs/events"
)

// moment is a time for people.
func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// because is the reason that somebody gave, if any.
func because(reason string) string {
	if reason == "" {
		return ""
	}
	return " (" + reason + ")"
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func (s *story) sayRequest(f ExecFact, p events.ExecRequested) string {
	text := fmt.Sprintf("%s asked for job %s %s to be run.", f.Actor, p.JobID, p.Version)
	switch {
	case p.ScheduleID != "" && f.Actor.Kind() == "user":
		text = fmt.Sprintf("%s asked for job %s %s to be run as schedule %s runs it", f.Actor, p.JobID, p.Version, p.ScheduleID)
		if p.Nominal != nil {
			text += ", in the place of its tick of " + moment(*p.Nominal)
		}
		text += "."
	case p.ScheduleID != "" && p.Nominal != nil:
		text = fmt.Sprintf("Schedule %s asked for job %s %s to be run at its tick of %s.", p.ScheduleID, p.JobID, p.Version, moment(*p.Nominal))
	}
	if p.RetryOf != "" {
		text += fmt.Sprintf(" It tries endpoints of exec %s again.", p.RetryOf)
	}
	if p.Reason != "" {
		text += because(p.Reason)
	}
	return text
}

func (s *story) sayPlan(t events.Target) string {
	switch t.State {
	case events.StateExpected:
		return fmt.Sprintf("The plan has the endpoint in %s and waits for it.", s.waveName(s.wave))
	case events.StateWaiting:
		return fmt.Sprintf("The plan has the endpoint in %s. It was away, so the outcome does not wait for it.", s.waveName(s.wave))
	case events.StateSkipped:
		return "The plan leaves the endpoint out: " + planSkip(t.Reason) + "."
	default:
		return "The plan does not name the endpoint."
	}
}

// planSkip says why a plan leaves an endpoint out.
func planSkip(reason string) string {
	switch reason {
	case events.SkipReasonShell:
		return "its agent does not know the shell of the script"
	case events.SkipReasonRunAs:
		return "its agent can't run a script as the user that the job asks for"
	case events.SkipReasonAgentTooOld:
		return "its agent is too old for the environment, arguments, input or success codes that the job gives its script"
	default:
		return reason
	}
}

func (s *story) sayHalt(f *ExecFact) string {
	p := f.Payload.(events.ExecHalted)
	return fmt.Sprintf("The exec was halted at %s: %s had failed, %d %s allowed to.", moment(f.At), endpoints(p.Failed), p.Allowed, agree(p.Allowed, "was", "were"))
}

// endpoints is "1 endpoint", "2 endpoints".
func endpoints(n int) string { return fmt.Sprintf("%d %s", n, agree(n, "endpoint", "endpoints")) }

// agree is one of two words, for one and for any other number.
func agree(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

func (s *story) sayCancel(f *ExecFact) string {
	return fmt.Sprintf("%s cancelled the exec at %s%s.", f.Actor, moment(f.At), because(f.Payload.(events.ExecCancelled).Reason))
}

func (s *story) sayKill(f *ExecFact) string {
	return fmt.Sprintf("%s killed the exec at %s%s.", f.Actor, moment(f.At), because(f.Payload.(events.ExecKilled).Reason))
}

// sayStop is the sentence of the stop that reaches furthest; empty where there was none.
func (s *story) sayStop() string {
	switch {
	case s.killed != nil:
		return s.sayKill(s.killed)
	case s.cancelled != nil:
		return s.sayCancel(s.cancelled)
	case s.halted != nil:
		return s.sayHalt(s.halted)
	}
	return ""
}

func (s *story) waveName(wave int) string {
	if s.plan != nil && wave >= 0 && wave < len(s.plan.Waves) && s.plan.Waves[wave].Label != "" {
		return fmt.Sprintf("wave %d (%s)", wave, s.plan.Waves[wave].Label)
	}
	return fmt.Sprintf("wave %d", wave)
}

// part names what is released or dispatched: a wave, or places of it, counted from 1.
func (s *story) part(wave, from, to int) string {
	if from == 0 && to == 0 {
		return s.waveName(wave)
	}
	return fmt.Sprintf("places %d to %d of %s", from+1, to, s.waveName(wave))
}

// tellRun adds what the endpoint itself said last.
func (s *story) tellRun() {
	t := s.Target
	kind, seq, at, text := "run.finished.v1", t.Sequence, t.At, ""
	switch {
	case t.ResultID == "":
		return
	case t.State == events.StateReceived:
		kind, text = "run.received.v1", "The endpoint has the command."
	case t.State == events.StateRunning:
		kind, text = "run.started.v1", "The endpoint began."
	case t.State == events.StateSkipped:
		kind, text = "run.skipped.v1", "The endpoint said that it does not run it."
	case settled(t) && s.Run == nil:
		return // its last word is not known, only that there was one
	case settled(t):
		kind, seq, at, text = "run.started.v1", s.Run.Seq, s.Run.At, "The endpoint began."
	case t.Reason == events.ReasonNotStarted:
		text = "The endpoint reported that it could not start the script."
	default:
		text = "The endpoint reported the end of its run: " + strings.ReplaceAll(string(t.State), "_", " ") + "."
	}
	s.steps = append(s.steps, Step{seq, at, kind, text})
}

// remarks are what is true whatever the state.
func (s *story) remarks() []string {
	var remarks []string
	t := s.Target
	if t.State != "" && s.plan != nil && !t.Planned {
		remarks = append(remarks, "The plan does not name it: it is counted apart.")
	}
	if Late(t, s.endSeq) {
		remarks = append(remarks, "It said so after the exec had ended at "+moment(s.ended)+".")
	}
	if t.State == events.StateWaiting && s.closed != nil {
		remarks = append(remarks, "The exec has ended without it.")
	}
	if s.Presence != nil && (t.State == events.StateSent || t.State == events.StateWaiting) {
		remarks = append(remarks, s.sayHeard())
	}
	return remarks
}

// judge says why the endpoint is in its state.
func (s *story) judge() (reason, sentence string) {
	switch s.Target.State {
	case "":
		return s.judgeNobody()
	case events.StateExpected, events.StateWaiting:
		return s.judgeOpen()
	case events.StateSent:
		return WhySilent, fmt.Sprintf("Its command is stored since %s; the endpoint has not said that it has it. It may begin until %s.", moment(s.Target.At), moment(s.deadlineAt))
	case events.StateReceived, events.StateRunning:
		return s.judgeBusy()
	case events.StateSkipped:
		return "", s.judgeSkip()
	case events.StateExpired:
		return s.judgeExpired()
	case events.StateUnknown:
		if settled(s.Target) {
			return WhyNoEnd, "It began" + s.span() + " and had not said how it ended when the exec expired" + s.at(s.expired) + "."
		}
		return "", "It began" + s.span() + ", and how it ended is not known" + s.why() + ". It is not run again."
	default:
		return "", s.judgeEnd()
	}
}

func (s *story) judgeNobody() (reason, sentence string) {
	switch {
	case s.plan != nil:
		return WhyNotInPlan, "The plan does not name it: " + s.sayNotInPlan()
	case len(s.Facts) == 0:
		return WhyNotKnown, "The log holds no fact of this exec any more, and the endpoint has said nothing of it."
	case s.sayStop() != "":
		return WhyNotPlanned, s.sayStop() + " It had not been decided who runs it."
	default:
		return WhyNotPlanned, "It is not decided yet who runs it: the exec is not planned."
	}
}

// sayNotInPlan says why a plan that does not name the endpoint does not. A group and all take in who has been heard.
func (s *story) sayNotInPlan() string {
	planned := "when the exec was planned at " + moment(s.plannedAt)
	named := s.asked()
	switch {
	case named == "":
		return "it was not in the target " + planned + "."
	case s.Presence.HeardAt.IsZero():
		return fmt.Sprintf("it is in the target by %s, but it was never heard, and who was never heard runs what names it alone.", named)
	default:
		return fmt.Sprintf("it is in the target by %s now; %s it was not, or had not been heard yet.", named, planned)
	}
}

// asked is by what the request's target has the endpoint in it, by what is known of the endpoint; empty where it has not,
// or nothing is known.
func (s *story) asked() string {
	if s.request == nil || s.Presence == nil {
		return ""
	}
	plan, err := catalog.ParsePlanDocument(s.request.Plan)
	if err != nil {
		return ""
	}
	if plan.Target.All {
		return "'all'"
	}
	groups := plan.Target.Groups
	if plan.Rollout != nil {
		for _, w := range plan.Rollout.Waves {
			groups = append(groups, w.Group)
		}
	}
	for _, g := range s.Presence.Groups {
		if slices.Contains(groups, g) {
			return fmt.Sprintf("its group '%s'", g)
		}
	}
	return ""
}

// sayHeard says whether the endpoint is there.
func (s *story) sayHeard() string {
	switch p := s.Presence; {
	case p.HeardAt.IsZero():
		return "It was never heard."
	case p.Alive:
		return "It is there: it was last heard at " + moment(p.HeardAt) + "."
	default:
		return "It is away: it was last heard at " + moment(p.HeardAt) + "."
	}
}

func (s *story) judgeOpen() (reason, sentence string) {
	switch {
	case s.wave < 0:
		return WhyNotKnown, "The log holds the exec's plan no more."
	case s.Target.State == events.StateExpected:
		return s.gate()
	case s.dispatched != nil:
		return WhyAway, fmt.Sprintf("It was away when the exec was planned. Its command is stored since %s: it runs if it is back before %s.",
			moment(s.dispatched.At), moment(s.deadlineAt))
	default:
		reason, sentence := s.gate()
		return reason, sentence + " The endpoint was away when the exec was planned."
	}
}

// gate says what holds the endpoint's command back.
func (s *story) gate() (reason, sentence string) {
	w, name := s.plan.Waves[s.wave], capital(s.waveName(s.wave))
	switch {
	case s.released != nil:
		return WhyDispatched, fmt.Sprintf("%s was released at %s, and its commands are being stored.", name, moment(s.released.At))
	case s.advanced != nil:
	case s.paused != nil:
		return WhyPaused, fmt.Sprintf("%s does not go out: %s paused the exec at %s%s.",
			name, s.paused.Actor, moment(s.paused.At), because(s.paused.Payload.(events.ExecPaused).Reason))
	case s.upTo > 0: // the wave's own time has come
	case w.Pause:
		return WhyRelease, name + " waits for an operator to release it."
	case w.After && s.wave > 0 && w.DelaySecs > 0:
		return WhyBefore, fmt.Sprintf("%s goes out %s after the end of %s.", name, w.Delay(), s.waveName(s.wave-1))
	case w.After && s.wave > 0:
		return WhyBefore, fmt.Sprintf("%s goes out at the end of %s.", name, s.waveName(s.wave-1))
	case w.DueAt.After(s.Now):
		return WhyTime, fmt.Sprintf("%s goes out at %s.", name, moment(w.DueAt))
	}
	switch {
	case s.plan.MaxParallel == nil:
		return WhyDispatcher, name + " may go out, and is about to be released."
	case !s.Target.Expected:
		return WhyLast, fmt.Sprintf("At most %s may have %s command at once, so those that were away get theirs when all the others have answered.",
			endpoints(*s.plan.MaxParallel), agree(*s.plan.MaxParallel, "its", "their"))
	default:
		return WhyBudget, fmt.Sprintf("At most %s may have %s command and not have answered, or have failed: of %s %d of %d %s out, and it has place %d.",
			endpoints(*s.plan.MaxParallel), agree(*s.plan.MaxParallel, "its", "their"), s.waveName(s.wave), s.upTo, len(w.Expected)+len(w.Waiting), agree(s.upTo, "is", "are"), s.place+1)
	}
}

func (s *story) judgeBusy() (reason, sentence string) {
	stop := s.sayStop()
	if s.Target.State == events.StateReceived {
		has := "It has the command since " + moment(s.Target.At)
		if stop != "" {
			return WhyStopping, has + ". " + stop + " It has not said yet that it does not begin."
		}
		return WhyQueued, has + " and has not begun: it waits for its jitter, for a run before it, or for its next attempt."
	}
	runs := "It runs" + s.span() + "."
	switch {
	case s.killed != nil:
		return WhyStopping, runs + " " + stop + " It has not said yet that its script has ended."
	case stop != "":
		return WhyRunning, runs + " " + stop + " What runs goes on."
	default:
		return WhyRunning, runs
	}
}

func (s *story) judgeEnd() string {
	code := ""
	if c := s.Target.Code; c != nil {
		code = fmt.Sprintf(" with exit code %d", *c)
	}
	switch s.Target.State {
	case events.StateSucceeded:
		return "It ran" + s.span() + " and succeeded" + code + "."
	case events.StateFailed:
		if s.Target.Reason == events.ReasonNotStarted {
			return "It did not run" + s.detail() + ". That counts as a failure."
		}
		return "It ran" + s.span() + " and failed" + code + s.why() + "."
	case events.StateTimedOut:
		limit := ""
		if s.request != nil {
			limit = fmt.Sprintf(" of %s", time.Duration(s.request.Script.TimeoutSecs)*time.Second)
		}
		return "It ran" + s.span() + " and was ended at its time limit" + limit + "."
	default:
		killed := "It ran" + s.span() + " and was killed" + s.why() + "."
		if s.killed != nil {
			killed += " " + s.sayKill(s.killed)
		}
		return killed
	}
}

func (s *story) judgeSkip() string {
	t := s.Target
	stopped := func(f *ExecFact, say func(*ExecFact) string) string {
		text := "The exec was stopped before it began."
		if f != nil {
			text = say(f)
		}
		before := func(f *ExecFact) bool { return f != nil && f.Seq < t.Sequence }
		switch {
		case before(s.dispatched):
			return text + " Its command was out, and it had not said that it had it; should it have begun, it will say so."
		case before(s.released):
			return text + " Its command was being stored at that moment, and is taken back."
		}
		return text + " Its command had not gone out."
	}
	says := "The endpoint did not run it: "
	switch t.Reason {
	case events.SkipReasonKilled:
		return stopped(s.killed, s.sayKill)
	case events.SkipReasonCancelled:
		return stopped(s.cancelled, s.sayCancel)
	case events.SkipReasonHalted:
		return stopped(s.halted, s.sayHalt)
	}
	if t.ResultID == "" {
		return "The plan leaves it out: " + planSkip(t.Reason) + "."
	}
	switch t.Reason {
	case events.SkipReasonVersion:
		says += "another version of the job is the current one"
	case events.SkipReasonDeadline:
		says += "the time until which it may begin had passed"
	case events.SkipReasonRevoked:
		says += "the job is revoked"
	case events.SkipReasonStale:
		says += "it could not make sure that the job is the current one, and what it knows is older than the job allows"
	case events.SkipReasonStopped:
		says += "the exec had been stopped, or had expired, before it began"
	case events.SkipReasonScriptObject:
		says += "the script object is missing, or is not the one that the command names"
	default:
		says += planSkip(t.Reason)
	}
	return says + s.detail() + "."
}

func (s *story) judgeExpired() (reason, sentence string) {
	expired := "the exec expired" + s.at(s.expired)
	switch {
	case s.Target.ResultID != "":
		return WhyNotBegun, "It had the command and had not said that it began when " + expired + "."
	case s.dispatched != nil && s.Target.Expected:
		return WhySilent, fmt.Sprintf("Its command was stored at %s, and it had said nothing of it when %s.", moment(s.dispatched.At), expired)
	case s.dispatched != nil:
		return WhyAway, "It was away when the exec was planned, and had said nothing of its command when " + expired + "."
	case s.wave < 0:
		return WhySilent, "It had said nothing when " + expired + "."
	}
	if s.expired != nil {
		s.Now = s.expired.At
	}
	reason, held := s.gate()
	return reason, capital(expired) + " before its command went out. What held it back: " + held
}

// at is when a fact was, if it is known.
func (s *story) at(f *ExecFact) string {
	if f == nil {
		return ""
	}
	return " at " + moment(f.At)
}

// span is when it ran by the endpoint's own clock, as far as is known.
func (s *story) span() string {
	switch {
	case s.Run == nil || s.Run.StartedAt.IsZero():
		return ""
	case s.Run.FinishedAt.IsZero():
		return " since " + moment(s.Run.StartedAt) + " (by its own clock)"
	default:
		return " from " + moment(s.Run.StartedAt) + " to " + moment(s.Run.FinishedAt) + " (by its own clock)"
	}
}

// why is what the endpoint said of the end of its run.
func (s *story) why() string {
	if s.Target.Reason == "" {
		return ""
	}
	return ": " + s.Target.Reason
}

// detail is what the endpoint said in words of why it did not run.
func (s *story) detail() string {
	if s.Run == nil {
		return ""
	}
	return because(s.Run.Detail)
}
