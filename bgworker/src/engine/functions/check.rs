//! Which types the functions take and give.

use super::{convert, read};
use crate::engine::error::{protocol, unsupported};
use pg_lake_plan::expr::Expr;
use pg_lake_plan::function::Function;
use pg_lake_plan::message::WireError;
use pg_lake_plan::types::LakeType;

/// Checks a call with arguments that are checked themselves, and a result of type `result`.
pub(in crate::engine) fn check(
    function: Function,
    args: &[Expr],
    result: &LakeType,
) -> Result<(), WireError> {
    let types: Vec<&LakeType> = args.iter().map(|arg| &arg.ty.lake).collect();
    if function == Function::Convert
        && let [from] = types.as_slice()
        && !convert::supported(from, result)
    {
        return Err(unsupported(format!(
            "conversion from {from:?} to {result:?}"
        )));
    }
    if fits(function, &types, result) {
        Ok(())
    } else {
        Err(protocol(format!("types of {}()", function.name())))
    }
}

fn fits(function: Function, args: &[&LakeType], result: &LakeType) -> bool {
    use LakeType::{Bool, Bytes, Date, Decimal, Float8, Int4, Int8, Text, Timestamp, Timestamptz};
    let whole = |of: &LakeType| match of {
        Decimal { .. } => matches!(result, Decimal { scale: 0, .. }),
        of => *of == Float8 && *result == Float8,
    };
    match (function, args) {
        (Function::Substring, [Text, Int4] | [Text, Int4, Int4]) => *result == Text,
        (Function::Left | Function::Right | Function::Repeat, [Text, Int4]) => *result == Text,
        (Function::Trim(_), [Text] | [Text, Text]) => *result == Text,
        (Function::Lower | Function::Upper | Function::Reverse, [Text]) => *result == Text,
        (Function::Length, [Text]) | (Function::OctetLength, [Text | Bytes]) => *result == Int4,
        (Function::Position, [Text, Text]) => *result == Int4,
        (Function::StartsWith, [Text, Text]) => *result == Bool,
        (Function::Replace, [Text, Text, Text]) => *result == Text,
        (Function::Concat, [Text, Text]) => *result == Text,
        (Function::PadLeft | Function::PadRight, [Text, Int4, Text]) => *result == Text,
        (Function::Abs, [of]) => match (of, result) {
            (Decimal { scale: had, .. }, Decimal { scale, .. }) => had == scale,
            _ => (of.is_integer() || of.is_float()) && *of == result,
        },
        (Function::Sign | Function::Ceil | Function::Floor, [of]) => whole(of),
        (Function::Round(digits) | Function::Truncate(digits), [of]) => match (of, result) {
            (Decimal { .. }, Decimal { scale, .. }) => i16::from(*scale) == digits.max(0),
            _ => digits == 0 && whole(of),
        },
        (Function::Sqrt, [Float8]) => *result == Float8,
        (Function::BitAnd | Function::BitOr | Function::BitXor, [left, right]) => {
            left.is_integer() && left == right && *left == result
        }
        (Function::BitNot, [of]) => of.is_integer() && *of == result,
        (Function::ShiftLeft | Function::ShiftRight, [of, Int4]) => {
            of.is_integer() && *of == result
        }
        (Function::Quotient, [Decimal { .. }, Decimal { .. }]) => result.is_decimal(),
        (Function::DecimalSqrt, [Decimal { .. }]) => result.is_decimal(),
        (Function::DecimalSqrtScale | Function::MinScale, [Decimal { .. }]) => *result == Int4,
        (Function::Factorial, [Int8]) => matches!(result, Decimal { scale: 0, .. }),
        (Function::DecimalPower, [Decimal { .. }, Decimal { .. }]) => result.is_decimal(),
        (Function::DecimalPowerScale, [Decimal { .. }, Decimal { .. }]) => *result == Int4,
        (Function::Convert, [_]) => true,
        (Function::Extract(field), [of]) => match result {
            Decimal { scale, .. } => field.scale(of) == Some(*scale),
            _ => false,
        },
        (Function::DatePart(field), [of]) => {
            **of != Date && field.scale(of).is_some() && *result == Float8
        }
        (Function::DateTrunc(field), [Timestamp]) => field.truncates() && *result == Timestamp,
        (Function::AddDays | Function::SubtractDays, [Date, Int4]) => *result == Date,
        (Function::DaysBetween, [Date, Date]) => *result == Int4,
        (Function::AddInterval(_), [Timestamp]) => *result == Timestamp,
        (Function::MakeDate, [Int4, Int4, Int4]) => *result == Date,
        (Function::Like, [Text, Text]) => *result == Bool,
        (Function::SplitPart, [Text, Text, Int4]) => *result == Text,
        (Function::Translate, [Text, Text, Text]) => *result == Text,
        (Function::Ascii, [Text]) => *result == Int4,
        (Function::Chr, [Int4]) | (Function::ToHex, [Int4 | Int8]) => *result == Text,
        (Function::Md5, [Text | Bytes]) => *result == Text,
        (Function::Power, [Float8, Float8]) => *result == Float8,
        (Function::Exp | Function::Ln | Function::Log10, [Float8]) => *result == Float8,
        (Function::Gcd | Function::Lcm, [left @ (Int4 | Int8), right]) => {
            left == right && *left == result
        }
        (
            Function::Gcd | Function::Lcm,
            [Decimal { scale: left, .. }, Decimal { scale: right, .. }],
        ) => matches!(result, Decimal { scale, .. } if scale == left.max(right)),
        (Function::DateBin(stride), [left @ (Timestamp | Timestamptz), right]) => {
            stride > 0 && left == right && *left == result
        }
        (Function::ToLocal, [Timestamptz, Int8]) => *result == Timestamp,
        (Function::ToInstant, [Timestamp, Int8]) => *result == Timestamptz,
        (Function::DateTruncAt(field), [Timestamptz, Int8]) => {
            field.truncates() && *result == Timestamptz
        }
        (Function::AddIntervalAt(_), [Timestamptz, Int8]) => *result == Timestamptz,
        (
            Function::WidthBucket,
            [Float8, Float8, Float8, Int4] | [Decimal { .. }, Decimal { .. }, Decimal { .. }, Int4],
        ) => *result == Int4,
        (Function::Print, [of]) => {
            (of.is_integer() || matches!(of, Bool | LakeType::Uuid)) && *result == Text
        }
        (Function::Overlay, [Text, Text, Int4] | [Text, Text, Int4, Int4]) => *result == Text,
        (Function::WholeQuotient, [Decimal { .. }, Decimal { .. }]) => {
            matches!(result, Decimal { scale: 0, .. })
        }
        (Function::SecondsBetween, [left @ (Timestamp | Timestamptz), right]) => {
            left == right && matches!(result, Decimal { scale: 6, .. } | Float8)
        }
        (Function::IntervalLength, [Text]) => matches!(result, Decimal { scale: 6, .. }),
        (Function::IntervalPart(field), [Text]) => match (field.scale_of_interval(), result) {
            (Some(shown), Decimal { scale, .. }) => shown == *scale,
            (shown, result) => shown.is_some() && *result == Float8,
        },
        (Function::IntervalAdd | Function::IntervalSubtract, [Text, Text]) => *result == Text,
        (Function::IntervalMultiply | Function::IntervalDivide, [Text, Float8]) => *result == Text,
        (
            Function::IntervalNegate
            | Function::JustifyHours
            | Function::JustifyDays
            | Function::JustifyInterval,
            [Text],
        ) => *result == Text,
        (Function::TimestampsBetween, [left @ (Timestamp | Timestamptz), right]) => {
            left == right && *result == Text
        }
        (Function::Age, [Timestamp, Timestamp]) => *result == Text,
        (Function::AddIntervalOf { .. }, [Timestamp, Text]) => *result == Timestamp,
        (Function::AddIntervalOf { .. }, [Timestamptz, Int8, Text]) => *result == Timestamptz,
        (Function::MakeInterval, [Int4, Int4, Int4, Int4, Int4, Int4, Float8]) => *result == Text,
        (Function::JsonField { .. } | Function::JsonStep { .. }, [Text, Text]) => *result == Text,
        (Function::JsonElement { .. }, [Text, Int4]) => *result == Text,
        (Function::JsonKind | Function::JsonOrder, [Text]) => *result == Text,
        (Function::JsonLength, [Text]) => *result == Int4,
        (Function::JsonHasKey | Function::JsonContains, [Text, Text]) => *result == Bool,
        (Function::JsonScalar, [Text]) => read::is_scalar(result),
        (Function::Read, [Text]) => read::is_read(result),
        (Function::FloatPair, [Float8, Float8]) => *result == Bytes,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_lake_plan::expr::{ExprKind, Field, Side};
    use pg_lake_plan::message::ErrorCode;
    use pg_lake_plan::types::SqlType;

    fn code(function: Function, args: &[LakeType], result: LakeType) -> Option<ErrorCode> {
        let args: Vec<Expr> = args
            .iter()
            .map(|lake| Expr {
                ty: SqlType {
                    lake: lake.clone(),
                    oid: 0,
                    typmod: -1,
                    collation: 0,
                },
                kind: ExprKind::Const(None),
            })
            .collect();
        check(function, &args, &result)
            .err()
            .map(|error| error.code)
    }

    #[test]
    fn calls_have_their_types() {
        use LakeType::{Bool, Date, Float8, Int4, Int8, Text, Uuid};
        let malformed = Some(ErrorCode::Protocol);
        let decimal = |scale| LakeType::Decimal {
            precision: 38,
            scale,
        };
        assert_eq!(code(Function::Trim(Side::Both), &[Text], Text), None);
        assert_eq!(code(Function::Substring, &[Text, Int4], Text), None);
        assert_eq!(code(Function::Substring, &[Text], Text), malformed);
        assert_eq!(code(Function::Substring, &[Text, Int8], Text), malformed);
        assert_eq!(code(Function::Abs, &[Int4], Int8), malformed);
        let year = Function::Extract(Field::Year);
        assert_eq!(code(year, &[Date], decimal(0)), None);
        assert_eq!(code(year, &[Date], decimal(2)), malformed);
        let hour = Function::Extract(Field::Hour);
        assert_eq!(code(hour, &[Date], decimal(0)), malformed);
        let round = Function::Round(2);
        assert_eq!(code(round, &[decimal(5)], decimal(2)), None);
        assert_eq!(code(round, &[decimal(5)], decimal(5)), malformed);
        assert_eq!(code(round, &[Float8], Float8), malformed);
        assert_eq!(code(Function::Round(0), &[Float8], Float8), None);
        assert_eq!(code(Function::Convert, &[Int4], Bool), None);
        let refused = Some(ErrorCode::Unsupported);
        assert_eq!(code(Function::Convert, &[Text], Uuid), refused);
    }
}
