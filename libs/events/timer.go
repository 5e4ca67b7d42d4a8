package events

import (
	"fmt"
	"strings"
)

// TimerSetSubject is where a timer waits. Kind is one token; key and generation are escaped. The generation is part of
// the subject because a timer is never replaced: when a due message is stored the broker purges the timer's subject,
// and a timer set again at that moment would vanish although acknowledged.
func TimerSetSubject(kind, key, generation string) string {
	return timerSubject("set", kind, key, generation)
}

// TimerDueSubject is where the broker puts it when it is due.
func TimerDueSubject(kind, key, generation string) string {
	return timerSubject("due", kind, key, generation)
}

// TimerDueFilter is what the handler of one kind listens to.
func TimerDueFilter(kind string) string { return "timers.due." + kind + ".>" }

func timerSubject(state, kind, key, generation string) string {
	return "timers." + state + "." + kind + "." + Escape(key) + "." + Escape(generation)
}

// ParseTimerSubject reads either subject back.
func ParseTimerSubject(subject string) (kind, key, generation string, err error) {
	parts := strings.Split(subject, ".")
	if len(parts) != 5 || parts[0] != "timers" || parts[1] != "set" && parts[1] != "due" {
		return "", "", "", fmt.Errorf("parse timer subject %q: want timers.<set|due>.<kind>.<key>.<generation>", subject)
	}
	if key, err = Unescape(parts[3]); err != nil {
		return "", "", "", fmt.Errorf("parse timer subject %q: %w", subject, err)
	}
	if generation, err = Unescape(parts[4]); err != nil {
		return "", "", "", fmt.Errorf("parse timer subject %q: %w", subject, err)
	}
	return parts[2], key, generation, nil
}

// DeadSubject is where a message that a handler can't process is parked.
func DeadSubject(handler string) string { return "dead." + Escape(handler) }
