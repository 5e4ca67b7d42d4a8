package agent

import (
	"context"
	"fmt"
	"os"
	"testing"

	"kanade/libs/bus/bustest"
)

// childEnv makes the test binary an agent: the process that TestKilledProcess kills. Its value is the broker's address.
const childEnv = "AGENT_TEST_BROKER"

func TestMain(m *testing.M) {
	if url := os.Getenv(childEnv); url != "" {
		c := Config{ID: testPC, NATSURL: url, NATSToken: bustest.Token, Data: os.Getenv("AGENT_TEST_DATA")}
		fmt.Fprintln(os.Stderr, Run(context.Background(), c, Deps{}))
		os.Exit(1)
	}
	bustest.Main(m)
}
