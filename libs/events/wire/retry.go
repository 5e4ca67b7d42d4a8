package wire

import (
	"strconv"
	"time"
)

// MaxRetries is the largest RetrySpec.Max.
const MaxRetries = 10

// RetrySpec says how often an agent tries again after an exit code other than 0 or a timeout; a kill ends it. Only the
// last attempt is reported. Part of Command.
type RetrySpec struct {
	// Max counts further attempts, 1 to MaxRetries.
	Max uint32 `json:"max"`
	// BackoffSecs is the fixed pause before each, in seconds.
	BackoffSecs uint64 `json:"backoff_secs"`
}

// UnmarshalJSON reads and checks.
func (r *RetrySpec) UnmarshalJSON(data []byte) (err error) {
	*r, err = decode[RetrySpec]("retry", data)
	return err
}

// Backoff is BackoffSecs, at most what a Duration holds.
func (r RetrySpec) Backoff() time.Duration { return seconds(r.BackoffSecs) }

func (r *RetrySpec) check() error {
	if r.Max < 1 || r.Max > MaxRetries {
		return &FieldError{"max", "must be 1 to " + strconv.Itoa(MaxRetries) + ", not " + strconv.FormatUint(uint64(r.Max), 10)}
	}
	return nil
}
