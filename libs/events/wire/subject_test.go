package wire

import (
	"slices"
	"testing"
)

func TestReplayConsumer(t *testing.T) {
	for pcID, want := range map[string]string{
		"pc-01": "agent_replay_pc-01", "host.example_1": "agent_replay_host_example_1", "bür o": "agent_replay_b_r_o",
	} {
		if got := ReplayDurable(pcID); got != want {
			t.Errorf("%s: %s", pcID, got)
		}
	}
	groups := []string{"tokyo", "canary"}
	want := []string{"commands.all", "commands.pc.pc-01", "commands.group.canary", "commands.group.tokyo"}
	if got := ReplayFilters("pc-01", groups); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if groups[0] != "tokyo" {
		t.Error("the caller's list was sorted")
	}
}
