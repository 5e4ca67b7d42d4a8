package catalog

import "time"

// ClockChange is what a change of a zone's clock does to a nominal time; empty: nothing.
type ClockChange string

// The changes: the time of day that is meant does not exist that day, and the first instant after the gap takes its place,
// or, where elapsed time counts, the instant at which it would have come; what the wall clock shows then it shows twice
// that day, and this is the first or the second time; the offset is another one than at an instant before.
const (
	ClockGap    ClockChange = "gap"
	ClockFirst  ClockChange = "first_of_two"
	ClockSecond ClockChange = "second_of_two"
	ClockOffset ClockChange = "offset"
)

// ClockChange says what a change of the clock does to a nominal time of the schedule. since is what the offset is held
// against: the nominal time before; zero: nothing. See [Schedule.Due].
func (s *Schedule) ClockChange(nominal, since time.Time, local *time.Location) ClockChange {
	c, err := s.clock(local)
	if err != nil {
		return ""
	}
	at := nominal.In(c.zone)
	civil := reading(at, c.zone)
	if meant, ok := c.spec.next(civil.Add(-time.Second)); !ok || !meant.Equal(civil) {
		return ClockGap
	}
	_, offset := at.Zone()
	start, end := bounds(at)
	if !end.IsZero() {
		_, after := end.Zone()
		if again := shifted(civil, time.Duration(after)*time.Second); after < offset && !again.Before(end) {
			return ClockFirst
		}
	}
	if !start.IsZero() {
		before := offsetBefore(start)
		if earlier := shifted(civil, before); before > time.Duration(offset)*time.Second && earlier.Before(start) {
			return ClockSecond
		}
	}
	if !since.IsZero() {
		if _, was := since.In(c.zone).Zone(); was != offset {
			return ClockOffset
		}
	}
	return ""
}
