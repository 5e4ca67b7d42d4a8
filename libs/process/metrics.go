package process

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Register shows collectors in a registry; nil is none. unregister takes them out again, so that a service may be run several
// times in one process. Of an error nothing is left, and what somebody else has registered stays.
func Register(reg prometheus.Registerer, collectors ...prometheus.Collector) (unregister func(), err error) {
	if reg == nil {
		return func() {}, nil
	}
	unregister = func() {
		for _, c := range collectors {
			reg.Unregister(c)
		}
	}
	for i, c := range collectors {
		if err := reg.Register(c); err != nil {
			collectors = collectors[:i]
			unregister()
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return unregister, nil
}
