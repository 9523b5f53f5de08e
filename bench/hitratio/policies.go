package main

// A candidate is a policy by its name.
type candidate struct {
	name string
	make func(setup) policy
}

// candidates in the order of the table: from the simple ones to those that see the future.
var candidates = []candidate{
	{"fifo", func(s setup) policy { return newFIFO(s) }},
	{"lru", func(s setup) policy { return newLRU(s) }},
	{"store", func(s setup) policy { return newStore(s, true) }},
	{"store-once", func(s setup) policy { return newStore(s, false) }},
	{"sieve", func(s setup) policy { return newSieve(s, 1) }},
	{"sieve-count", func(s setup) policy { return newSieve(s, 3) }},
	{"sieve-size", func(s setup) policy { return newSieveSize(s) }},
	{"sieve-second", func(s setup) policy { return newSecond(s) }},
	{"s3fifo", func(s setup) policy { return newS3FIFO(s) }},
	{"wtinylfu", func(s setup) policy { return newTinyLFU(s) }},
	{"gdsf", func(s setup) policy { return newGDSF(s) }},
	{"lfuda", func(s setup) policy { return newLFUDA(s) }},
	{"belady", func(s setup) policy { return newBelady(s) }},
	{"belady-size", func(s setup) policy { return newBeladySize(s) }},
}

func policyNames() (names []string) {
	for _, c := range candidates {
		names = append(names, c.name)
	}
	return names
}

func candidateByName(name string) *candidate {
	for i := range candidates {
		if candidates[i].name == name {
			return &candidates[i]
		}
	}
	return nil
}
