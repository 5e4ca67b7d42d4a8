package journal

import (
	"context"
	"fmt"

	"kanade/libs/events"
	"kanade/services/api/internal/domain"
)

// SetGroups gives an endpoint exactly these groups and returns the resulting list, sorted.
func (j *Journal) SetGroups(ctx context.Context, c Caller, pcID string, groups []string) ([]string, uint64, error) {
	return j.group(ctx, c, pcID, func(current []string) (*events.AgentGrouped, error) {
		return domain.SetGroups(pcID, current, groups)
	})
}

// JoinGroup adds an endpoint to a group.
func (j *Journal) JoinGroup(ctx context.Context, c Caller, pcID, group string) ([]string, uint64, error) {
	return j.group(ctx, c, pcID, func(current []string) (*events.AgentGrouped, error) {
		return domain.JoinGroup(pcID, current, group)
	})
}

// LeaveGroup takes an endpoint out of a group; it need not be a member.
func (j *Journal) LeaveGroup(ctx context.Context, c Caller, pcID, group string) ([]string, uint64, error) {
	return j.group(ctx, c, pcID, func(current []string) (*events.AgentGrouped, error) {
		return domain.LeaveGroup(pcID, current, group), nil
	})
}

func (j *Journal) group(
	ctx context.Context, c Caller, pcID string, decide func(current []string) (*events.AgentGrouped, error),
) (groups []string, seq uint64, err error) {
	seq, err = j.write(ctx, c, subject{aggregate: events.AggregateAgent, id: pcID, fact: factGrouped}, func(ctx context.Context) (decision, error) {
		cur, at, last, err := j.groups(ctx, pcID)
		if err != nil {
			return decision{}, err
		}
		groups = cur
		fact, err := decide(cur)
		if err != nil || fact == nil {
			return decision{sequence: at}, err
		}
		groups = fact.Groups
		return decision{fact: *fact, expected: last}, nil
	})
	if err == nil && groups == nil { // a repeated request, which was not decided again
		groups, _, _, err = j.groups(ctx, pcID)
	}
	return groups, seq, err
}

// groups reads an endpoint's membership strongly, the sequence of the fact that made it and the aggregate's last.
func (j *Journal) groups(ctx context.Context, pcID string) (groups []string, at, last uint64, err error) {
	newest, _, err := j.bus.Last(ctx, events.StreamLog, events.AggregateFilter(events.AggregateAgent, pcID))
	if err != nil {
		return nil, 0, 0, fmt.Errorf("read groups of %s: %w", pcID, err)
	}
	s, ok, err := j.bus.Last(ctx, events.StreamLog, events.FactSubject(events.AggregateAgent, pcID, factGrouped))
	if err != nil {
		return nil, 0, 0, fmt.Errorf("read groups of %s: %w", pcID, err)
	}
	if !ok {
		return []string{}, 0, newest.Seq, nil
	}
	p, err := s.Payload()
	if err != nil {
		return nil, 0, 0, fmt.Errorf("read groups of %s: %w", pcID, err)
	}
	grouped, ok := p.(events.AgentGrouped)
	if !ok {
		return nil, 0, 0, fmt.Errorf("read groups of %s: sequence %d holds %s", pcID, s.Seq, s.Type)
	}
	return append([]string{}, grouped.Groups...), s.Seq, newest.Seq, nil
}
