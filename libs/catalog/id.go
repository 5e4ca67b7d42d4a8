package catalog

import "fmt"

// Limits of documents. Each is refused with a sentence that names it.
const (
	// MaxID is the length of an id, in characters.
	MaxID = 128
	// MaxScript is the size of an inline script, in bytes.
	MaxScript = 1 << 20
	// MaxManifest is the size of a manifest, as sent and as stored, in bytes.
	MaxManifest = 3 << 19
	// MaxSchedule is the size of a schedule, as sent and as stored, in bytes: that of a request body.
	MaxSchedule = 2 << 20
	// MaxPlan is the size of a plan as sent, in bytes: that of a request body.
	MaxPlan = 2 << 20
	// MaxPlanPCs is the number of endpoints that a plan may name.
	MaxPlanPCs = 100_000
)

// ValidID checks the id of a job, schedule, endpoint or group: a letter or digit, then letters, digits and . _ = / -, no
// dot at the end, MaxID characters at most. Ids become bucket keys and parts of subjects as they are.
func ValidID(id string) error {
	if id == "" {
		return fmt.Errorf("must not be empty")
	}
	if len(id) > MaxID {
		return fmt.Errorf("longer than the limit of %d characters", MaxID)
	}
	for i := range len(id) {
		c := id[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		mark := c == '.' || c == '_' || c == '=' || c == '/' || c == '-'
		if !letter && (!mark || i == 0) {
			return fmt.Errorf("%q is not an id: it begins with a letter or digit and goes on with letters, digits and . _ = / -", id)
		}
	}
	if id[len(id)-1] == '.' {
		return fmt.Errorf("%q is not an id: it ends in a dot", id)
	}
	return nil
}
