package clerk

import (
	"math/big"
	"strings"
)

// permissions unpacks the permissions of a version 2 token: the i-th number in fpm belongs to the i-th feature
// in fea, and its j-th bit, from the lowest, to the j-th name in per.
//
// What "i-th feature" means where fea also lists features of the user is read in two ways: Clerk's SDK counts
// the features of the organization, Clerk's documentation all. A permission is granted where both agree, so
// that neither reading grants too much. A feature of an unknown scope has no place in either.
func permissions(fea, per, fpm string) []string {
	names, masks := splitList(per), parseMasks(splitList(fpm))
	granted := []string{}
	ofAll, ofOrg := -1, -1
	for _, f := range splitList(fea) {
		scope, feature, scoped := strings.Cut(f, ":")
		if scoped && scopes[scope] == 0 {
			continue
		}
		ofAll++
		if feature == "" || scopes[scope]&scopeOrg == 0 {
			continue
		}
		ofOrg++
		a, b := mask(masks, ofOrg), mask(masks, ofAll)
		for j, name := range names {
			if name != "" && a.Bit(j) == 1 && b.Bit(j) == 1 {
				granted = append(granted, "org:"+feature+":"+name)
			}
		}
	}
	return granted
}

var noBits = new(big.Int)

func mask(masks []*big.Int, i int) *big.Int {
	if i >= len(masks) {
		return noBits
	}
	return masks[i]
}

// parseMasks reads the masks, which may be longer than any machine word. What is not a plain decimal number
// grants nothing.
func parseMasks(list []string) []*big.Int {
	masks := make([]*big.Int, len(list))
	for i, text := range list {
		masks[i] = noBits
		if strings.Trim(text, "0123456789") != "" {
			continue
		}
		if n, ok := new(big.Int).SetString(text, 10); ok {
			masks[i] = n
		}
	}
	return masks
}

// splitList splits a list at its commas and drops the spaces around its elements. Empty text is an empty list;
// an empty element keeps its place.
func splitList(text string) []string {
	if text == "" {
		return nil
	}
	list := strings.Split(text, ",")
	for i, s := range list {
		list[i] = strings.TrimSpace(s)
	}
	return list
}
