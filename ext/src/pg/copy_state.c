/*
 * The two fields of COPY FROM's state that copy_state.rs needs. The struct is in a header that
 * pgrx's bindings leave out; here the compiler reads it.
 */
#include "postgres.h"

#include "commands/copyfrom_internal.h"

extern PGDLLEXPORT Relation lake_copy_relation(CopyFromState state);
extern PGDLLEXPORT FmgrInfo *lake_copy_input_functions(CopyFromState state);

Relation
lake_copy_relation(CopyFromState state)
{
	return state->rel;
}

/* One for each attribute of the relation; null in a binary COPY, whose functions receive. */
FmgrInfo *
lake_copy_input_functions(CopyFromState state)
{
	return state->opts.binary ? NULL : state->in_functions;
}
