package agent

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// An endpoint carries neither the broker nor a database, and the agent knows no other service.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "./...").Output()
	require.NoError(t, err)
	deps := strings.Fields(string(out))
	require.Contains(t, deps, "kanade/libs/bus")
	for _, d := range deps {
		for _, forbidden := range []string{"github.com/nats-io/nats-server/", "modernc.org/", "kanade/libs/readmodel", "kanade/libs/bus/broker"} {
			require.False(t, strings.HasPrefix(d, forbidden), "the agent links %s", d)
		}
		if strings.HasPrefix(d, "kanade/services/") {
			require.True(t, strings.HasPrefix(d, "kanade/services/agent"), "the agent imports %s", d)
		}
	}
}
