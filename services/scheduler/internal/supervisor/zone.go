package supervisor

import (
	"time"

	"github.com/thlib/go-timezone-local/tzlocal"
)

// hostZone is the IANA zone of this machine, UTC where it can't be told.
func hostZone() string {
	name, err := tzlocal.RuntimeTZ()
	if err != nil {
		return "UTC"
	}
	if _, err := time.LoadLocation(name); err != nil || name == "" || name == "Local" {
		return "UTC"
	}
	return name
}
