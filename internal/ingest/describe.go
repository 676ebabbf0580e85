package ingest

import (
	"slices"
	"strings"
)

// SourceInfo is what the policy says about one data source.
type SourceInfo struct {
	Name   string
	Token  string   // a secret
	Fields []string // the stamped ones, in the order of the config
}

// Describe lists the data sources of the policy, sorted by name. A nil policy has none.
func (p *Policy) Describe() []SourceInfo {
	if p == nil {
		return nil
	}
	list := make([]SourceInfo, 0, len(p.sources))
	for _, s := range p.sources {
		info := SourceInfo{Name: s.name, Token: s.token}
		for i := range s.stamps {
			info.Fields = append(info.Fields, s.stamps[i].field)
		}
		list = append(list, info)
	}
	slices.SortFunc(list, func(a, b SourceInfo) int { return strings.Compare(a.Name, b.Name) })
	return list
}
